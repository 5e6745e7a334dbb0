"""Name, handler and language that a function gets from its folder or file."""

from __future__ import annotations

from pathlib import Path

from engine.runtimes.catalog import Family

NODE = (".js", ".mjs", ".cjs")


def default_name(path: Path) -> str:
    """Return the default name of a function deployed from ``path``: the folder's name, or the file's without suffix."""
    path = path.resolve()
    return path.name if path.is_dir() else path.stem


def default_handler(path: Path) -> str:
    return f"{path.stem}.handler" if path.suffix in (".py", *NODE) else "index.handler"


def default_language(path: Path) -> Family:
    """Return Node.js for a JavaScript file or a folder with ``index.js``, else Python.

    The suffixes .mjs and .cjs count as .js.
    """
    found = path.suffix in NODE or any((path / f"index{suffix}").is_file() for suffix in NODE)
    return Family.NODE if found else Family.PYTHON
