"""Packaging of a folder or file as a zip package for the API.

On the same machine, equal files give a package of equal bytes, so the engine stores the code of an unchanged function
a single time.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from engine.cli.client import UsageError
from engine.runtimes.catalog import Family, find_runtime

EXCLUDED = frozenset({"__pycache__", ".git", ".hg", ".svn", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
_NODE = (".js", ".mjs", ".cjs")
_MOMENT = (1980, 1, 1, 0, 0, 0)  #: earliest time that a zip file can contain


def pack(path: Path) -> bytes:
    """Return a folder or file as a zip package, and a zip file unchanged.

    Raises UsageError if a file cannot be read or the folder contains no files.
    """
    try:
        if path.is_dir():
            return _zipped(path, list(_files(path)))
        if path.suffix == ".zip":
            return path.read_bytes()
        return _zipped(path.parent, [path])
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or path}: {error.strerror}") from None


def default_name(path: Path) -> str:
    """Return the default name of a function deployed from ``path``: the folder's name, or the file's without suffix."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def default_handler(path: Path) -> str:
    return f"{path.stem}.handler" if path.suffix in (".py", *_NODE) else "index.handler"


def default_runtime(path: Path) -> str:
    """Return the default runtime: Node.js for a JavaScript file or a folder with ``index.js``, else Python.

    The suffixes .mjs and .cjs count as .js.
    """
    found = path.suffix in _NODE or any((path / f"index{suffix}").is_file() for suffix in _NODE)
    return "Node.js18.15" if found else "Python3.10"


def missing_entry(package: bytes, runtime: str, handler: str) -> str:
    """Return the name of the file that the handler names, such as ``index.py``, if the zip package lacks it.

    Returns an empty text if the package has the file or is no zip file, or if the runtime or handler implies no file
    name.
    """
    found = find_runtime(runtime)
    module = handler.rpartition(".")[0]
    endings = {Family.PYTHON: (".py", "/__init__.py", ".pyc", ".so"), Family.NODE: _NODE}
    if found is None or found.family not in endings or not module:
        return ""
    try:
        names = zipfile.ZipFile(io.BytesIO(package)).namelist()
    except zipfile.BadZipFile:
        return ""  # the engine reports the invalid package
    entries = tuple(f"{module}{ending}" for ending in endings[found.family])
    return "" if any(name in entries for name in names) else entries[0]


def _files(folder: Path) -> Iterator[Path]:
    found = False
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in EXCLUDED)
        for name in sorted(names):
            file = Path(parent, name)
            if file.is_file() and file.suffix != ".pyc":
                found = True
                yield file
    if not found:
        raise UsageError(f"{folder} contains no files: a function needs at least one, such as index.py")


def _zipped(root: Path, files: list[Path]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = zipfile.ZipInfo(file.relative_to(root).as_posix(), _MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if os.access(file, os.X_OK) else 0o100644) << 16
            archive.writestr(entry, file.read_bytes())
    return packed.getvalue()
