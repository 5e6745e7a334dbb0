"""Packages that a ``bootstrap`` starts: programs of any language, and Java archives, which get one."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from engine.deploy.packaging.node import NODE
from engine.deploy.packaging.python import module_file

BOOTSTRAP = "bootstrap"
#: Runtimes of programs that request their events, by a text that each such program has.
_CLIENTS = {
    b"AWS_LAMBDA_RUNTIME_API": "provided.al2",
    b"lambda.runtime.api": "provided.al2",
    b"RUNTIME_API_ADDR": "Custom",
}

Contents = Mapping[str, Path] | Mapping[str, zipfile.Path]


def guess_runtime(files: Contents, handler: str) -> tuple[str, str]:
    """Return the runtime of a package with a ``bootstrap`` or a single Java archive, and a line for the user.

    Both are empty for a package without, or with a file of Python or Node.js for the handler.
    """
    module, starts = handler.rpartition(".")[0], BOOTSTRAP if BOOTSTRAP in files else java_archive(files)
    if not starts or (module and has_module(files, module)):
        return "", ""
    program = files[BOOTSTRAP].read_bytes() if starts == BOOTSTRAP else b""
    runtime = next((runtime for text, runtime in _CLIENTS.items() if text in program), "http")
    if runtime == "http":
        other = "--runtime Custom or provided.al2 is for one that requests its events"
        return runtime, f"{starts} runs as a server on port 8000 (runtime http): {other}"
    return runtime, f"{starts} requests its events (runtime {runtime}): --runtime http is for a server on port 8000"


def has_module(files: Contents, module: str) -> bool:
    """Return whether a package has the file of a handler's module, for Python or Node.js."""
    return bool(module_file(files, module)) or any(f"{module}{suffix}" in files for suffix in NODE)


def java_archive(names: Iterable[str]) -> str:
    """Return the name of the only Java archive in the root of a package; empty if there is none, or several."""
    archives = [name for name in names if name.endswith(".jar") and "/" not in name]
    return archives[0] if len(archives) == 1 else ""


def java_bootstrap(archive: str) -> bytes:
    """Return a ``bootstrap`` that runs a Java archive, with a heap that fits the memory of the instance."""
    return f"#!/bin/sh\nexec java -XX:MaxRAM=${{RUNTIME_MEMORY}}m -jar {shlex.quote(archive)}\n".encode()


def foreign_line_ends(files: Mapping[str, Path]) -> list[str]:
    """Return a line for each shell script in the root whose lines end as on Windows."""
    scripts = [name for name in files if name == BOOTSTRAP or (name.endswith(".sh") and "/" not in name)]
    texts = {name: files[name].read_bytes() for name in scripts}
    advice = "write them as LF, for example by: sed -i 's/\\r$//' "
    return [
        f"lines of {name} end with CRLF, as on Windows, and no shell reads them: {advice}{shlex.quote(name)}"
        for name, text in texts.items()
        if b"\r\n" in text and b"\0" not in text
    ]
