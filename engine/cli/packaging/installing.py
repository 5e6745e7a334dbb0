"""Installation of a function's dependencies for the interpreter that will run it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from engine.cli.output import write
from engine.cli.packaging import cache, node_dependencies, python_dependencies
from engine.cli.packaging.interpreters import interpreter_text, local_builder
from engine.runtimes.catalog import Family
from engine.runtimes.descriptions import InterpreterInfo

_FORMAT = 1  #: of the cache's entries; after a change, earlier entries are not used
_SETTINGS = ("PIP_", "UV_", "NPM_CONFIG_")  #: beginnings of variables that choose what is installed
_NODE_MODULES = "node_modules/"

Files = Mapping[str, Path]


class _Job(Struct, frozen=True, kw_only=True):
    file: str  #: name of the file with the dependencies
    content: str  #: of all files that say what is installed; empty: the result is not kept
    tool: str
    wanted: InterpreterInfo
    fill: cache.Fill

    @property
    def key(self) -> str:
        """Key of the cache's entry; empty if there is none."""
        if not self.content:
            return ""
        one, is_node = self.wanted, self.wanted.language is Family.NODE
        platform = (one.implementation, one.minor[: 1 if is_node else 2], one.machine, one.libc, one.libc_version)
        settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(_SETTINGS))
        described = [_FORMAT, self.content, self.tool, platform, local_builder(one) is not None, settings]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()


@contextmanager
def with_dependencies(root: Path, own: Files, wanted: InterpreterInfo, *, reinstall: bool) -> Iterator[Files]:
    """Yield the files of a folder and of its dependencies, which are installed unless the cache has them.

    A file of the folder replaces one of the dependencies. Raises UsageError if they cannot be installed.
    """
    job = _node_job(root, own, wanted) if wanted.language is Family.NODE else _python_job(root, wanted)
    if job is None:
        yield own
        return
    if reinstall:
        cache.forget(job.key)
    source = "dependencies from the cache:" if cache.has(job.key) else "installing"
    write(f"functiond: {source} {job.file} with {job.tool} for {interpreter_text(wanted)}", errors=True)
    with cache.entry(job.key, job.fill) as folder:
        if wanted.language is Family.NODE:
            own = {name: file for name, file in own.items() if not name.startswith(_NODE_MODULES)}
        yield {**dict(_needed(folder, wanted.language)), **own}


def _python_job(root: Path, wanted: InterpreterInfo) -> _Job | None:
    found = python_dependencies.find_dependencies(root)
    if found is None:
        return None
    tool = python_dependencies.tool_of(wanted)
    return _Job(
        file=found.file.name,
        content=found.content,
        tool=tool,
        wanted=wanted,
        fill=lambda folder: python_dependencies.install(found, tool, wanted, folder),
    )


def _node_job(root: Path, own: Files, wanted: InterpreterInfo) -> _Job | None:
    found = node_dependencies.find_dependencies(root)
    if found is None:
        return None
    return _Job(
        file=found.file.name,
        content=found.content,
        tool="npm",
        wanted=wanted,
        fill=lambda folder: node_dependencies.install(found, own, wanted, folder),
    )


def _needed(folder: Path, language: Family) -> Iterator[tuple[str, Path]]:
    """Yield the installed files that the code needs when it runs, by their names in the package."""
    needed = node_dependencies.is_needed if language is Family.NODE else python_dependencies.is_needed
    for name, file in _tree(str(folder), "", ()):
        if needed(name):
            yield name, file


def _tree(folder: str, prefix: str, parents: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    """Yield the files below a folder. Links to folders are followed, as npm links local packages, never in circles."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _tree(entry.path, f"{prefix}{entry.name}/", (*parents, real))
        elif entry.is_file():
            yield prefix + entry.name, Path(entry.path)
