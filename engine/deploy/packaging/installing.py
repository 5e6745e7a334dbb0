"""Installation of a function's dependencies for the interpreter that will run it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from engine.deploy.packaging import cache, node, python
from engine.deploy.packaging.node import NodeDependencies
from engine.deploy.packaging.python import PythonDependencies
from engine.deploy.packaging.tools import interpreter_text, local_builder
from engine.deploy.progress import report
from engine.runtimes.catalog import Family
from engine.runtimes.descriptions import InterpreterInfo

_FORMAT = 1  #: of the cache's entries; after a change, earlier entries are not used
_SETTINGS = ("PIP_", "UV_", "NPM_CONFIG_")  #: beginnings of variables that choose what is installed
_NODE_MODULES = "node_modules/"

Files = Mapping[str, Path]


@contextmanager
def with_dependencies(root: Path, own: Files, wanted: InterpreterInfo, *, reinstall: bool) -> Iterator[Files]:
    """Yield the files of a folder and of its dependencies, which are installed unless the cache has them.

    A file of the folder replaces one of the dependencies. Raises UsageError if they cannot be installed.
    """
    found: NodeDependencies | PythonDependencies | None = (
        node.find_dependencies(root) if wanted.language is Family.NODE else python.find_dependencies(root)
    )
    if found is None:
        yield own
        return
    tool = found.tool(wanted)
    key = _key(found.content, tool, wanted)
    if reinstall:
        cache.forget(key)
    source = "dependencies from the cache:" if cache.has(key) else "installing"
    report(f"functiond: {source} {found.file.name} with {tool} for {interpreter_text(wanted)}")
    with cache.entry(key, partial(found.install, tool, own, wanted)) as folder:
        if wanted.language is Family.NODE:
            own = {name: file for name, file in own.items() if not name.startswith(_NODE_MODULES)}
        yield {name: file for name, file in _tree(str(folder), "", ()) if found.needs(name)} | dict(own)


def _key(content: str, tool: str, wanted: InterpreterInfo) -> str:
    """Return the key of an entry of the cache; empty if there is none, as ``content`` says."""
    if not content:
        return ""
    parts = 1 if wanted.language is Family.NODE else 2
    platform = (wanted.implementation, wanted.minor[:parts], wanted.machine, wanted.libc, wanted.libc_version)
    settings = sorted((name, value) for name, value in os.environ.items() if name.upper().startswith(_SETTINGS))
    described = [_FORMAT, content, tool, platform, local_builder(wanted) is not None, settings]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


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
