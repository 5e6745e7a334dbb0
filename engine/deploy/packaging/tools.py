"""Interpreters, as the engine and this machine have them, and programs that install dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from anyio.from_thread import start_blocking_portal
from msgspec import Struct, convert

from engine.deploy.client import Client
from engine.deploy.progress import status_line
from engine.errors import InvalidField, UsageError
from engine.model.text import visible
from engine.runtimes.catalog import Family, runtime_name
from engine.runtimes.interpreters import InterpreterInfo, Interpreters, describe

_SHOWN = 12  #: first lines of a program, and last ones, that an error shows
#: Settings of users for other installations than these.
_ENVIRONMENT = {
    "PIP_REQUIRE_VIRTUALENV": "0",
    "PIP_USER": "0",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "NO_COLOR": "1",
}


class LocalInterpreter(Struct, frozen=True, kw_only=True):
    path: str
    info: InterpreterInfo


def interpreter_of(client: Client, runtime: str) -> InterpreterInfo | None:
    """Return the interpreter of a runtime, or the ``python3`` of a ``bootstrap``; None if the engine names none."""
    interpreters = convert(client.of_project.get("/interpreters", runtime=runtime), list[InterpreterInfo])
    return interpreters[0] if interpreters else None


def default_runtime(client: Client, language: Family) -> str:
    """Return the runtime of the Python that runs this command if the engine has it, else the newest of the engine."""
    everything = convert(client.of_project.get("/interpreters"), list[InterpreterInfo])
    runtimes = [interpreter.runtime for interpreter in everything if interpreter.language is language]
    if not runtimes:
        name = "Python" if language is Family.PYTHON else "Node.js"
        raise UsageError(f"the engine has no {name}: install it on the engine's machine, or choose another --runtime")
    own = runtime_name(Family.PYTHON, sys.version_info[:2])
    return own if own in runtimes else runtimes[0]


@lru_cache(maxsize=8)
def local_interpreter(wanted: InterpreterInfo) -> LocalInterpreter | None:
    """Return an interpreter of this machine with the language and version of ``wanted``; None if there is none.

    Of Node.js, the major version counts.
    """
    try:
        with start_blocking_portal() as portal:  # this thread may run an event loop, for example that of a notebook
            _, interpreter = portal.call(Interpreters().find, runtime_name(wanted.language, wanted.minor))
    except InvalidField:
        return None
    info = describe(wanted.runtime, wanted.language, interpreter.path) if interpreter else None
    if interpreter is None or info is None or not _same_version(info, wanted):
        return None
    return LocalInterpreter(path=interpreter.path, info=info)


def local_builder(wanted: InterpreterInfo) -> LocalInterpreter | None:
    """Return an interpreter of this machine for which packages can be built that run with ``wanted``; None if none."""
    local = local_interpreter(wanted)
    if local is None or (local.info.machine, local.info.libc) != (wanted.machine, wanted.libc):
        return None
    return local if _numbers(local.info.libc_version) <= _numbers(wanted.libc_version) else None


def interpreter_text(interpreter: InterpreterInfo) -> str:
    """Return the version and platform of an interpreter for people."""
    name = (
        "Node.js"
        if interpreter.language is Family.NODE
        else "Python"
        if interpreter.implementation == "cpython"
        else interpreter.implementation
    )
    libc = f", {interpreter.libc} {interpreter.libc_version}".rstrip() if interpreter.libc else ""
    return f"{name} {interpreter.version} ({interpreter.machine}{libc})"


def _same_version(own: InterpreterInfo, wanted: InterpreterInfo) -> bool:
    parts = 1 if wanted.language is Family.NODE else 2
    return own.minor[:parts] == wanted.minor[:parts] and own.implementation == wanted.implementation


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def run_tool(command: Sequence[str], folder: Path, action: str, advice: str = "") -> None:
    """Run a program in a folder, and show its last line on a terminal.

    Raises UsageError with its first and last lines and an advice if it fails.
    """
    first: list[str] = []
    last: deque[str] = deque(maxlen=_SHOWN)
    # An empty or relative entry, as in PYTHONPATH=$PYTHONPATH:/lib, would have Python import modules of the folder.
    modules = ":".join(filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(":")))
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": modules}
    with (
        status_line(action) as show,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                (first if len(first) < _SHOWN else last).append(line.rstrip())
                show(visible(line.strip())[:100])
    if process.returncode:
        said = "\n  ".join([f"cannot finish {action}:", *first, *last])
        raise UsageError(f"{said}\n{advice}".rstrip())
