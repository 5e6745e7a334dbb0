"""Checks of JavaScript code before it is sent: its syntax, and whether it exports the function of the handler."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.cli.client import UsageError
from engine.cli.packaging.defaults import NODE
from engine.cli.packaging.interpreters import interpreter_text, local_interpreter
from engine.runtimes.descriptions import InterpreterInfo

_AT_MOST = 100  #: files; each takes a process
_TOGETHER = 4  #: processes


def check_syntax(files: Mapping[str, Path], wanted: InterpreterInfo) -> None:
    """Check the syntax of a package's JavaScript files if this machine has Node.js of the wanted version.

    Raises UsageError with what Node.js says about the first file that it does not accept.
    """
    local = local_interpreter(wanted)
    own = [file for name, file in files.items() if name.endswith(NODE) and "node_modules/" not in name]
    if local is None:
        return
    node = local.path

    def problem(file: Path) -> str:
        run = subprocess.run([node, "--check", file], stderr=subprocess.PIPE, text=True, check=False)
        return "" if run.returncode == 0 else run.stderr

    with ThreadPoolExecutor(_TOGETHER) as threads:
        for said in threads.map(problem, own[:_AT_MOST]):
            if said:
                report = said.partition("\n    at ")[0].strip().replace("\n", "\n  ")
                raise UsageError(f"the code has a syntax error, says {interpreter_text(wanted)}:\n  {report}")


def check_handler(files: Mapping[str, Path], handler: str) -> str:
    """Check that the package has the file that the handler names. Return a line if it seems to export no such function.

    Raises UsageError if the handler is malformed, or its file does not exist.
    """
    path, _, name = handler.rpartition(".")
    path = path.lstrip("/")
    if not path or not name:
        raise UsageError(f"the handler is {handler}: it must look like file.function, such as index.handler")
    file = next((path + suffix for suffix in NODE if path + suffix in files), "")
    if not file:
        raise UsageError(f"the package has no {path}.js for the handler {handler}: set another --handler")
    text = files[file].read_text(errors="replace")
    exports = re.search(r"\bexports?\b", text) is not None and re.search(rf"\b{re.escape(name)}\b", text) is not None
    return "" if exports else f"{file} seems to export no function {name} for the handler {handler}"
