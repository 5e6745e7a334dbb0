"""Inline code: the file in which source text is stored."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from engine.errors import InvalidField
from engine.runtimes.catalog import Family, find_runtime

_MODULE = re.compile(r"[\w-]+([./][\w-]+)*", re.ASCII)
_NODE_SUFFIXES = (".js", ".mjs", ".cjs")


def inline_file(handler: str, runtime: str, filename: str = "") -> tuple[str, int]:
    """Return path and mode of the file for inline source: ``index.py`` for the Python handler ``index.handler``.

    Runtimes without an interpreter use ``bootstrap``. The suffix of the caller's ``filename`` distinguishes a module of
    Node.js (``.mjs``) from a script. Raises InvalidField if the handler of an interpreted runtime does not have
    the form ``file.function``.
    """
    family = family_of(runtime)
    if not family.interpreted:
        return "bootstrap", 0o755
    module = handler.rpartition(".")[0]
    if not _MODULE.fullmatch(module):
        raise InvalidField("handler", handler, "needs the form file.function, such as index.handler")
    if family is Family.PYTHON:
        return module.replace(".", os.sep) + ".py", 0o644
    suffix = PurePath(filename).suffix
    return module + (suffix if suffix in _NODE_SUFFIXES else ".js"), 0o644


def family_of(runtime: str) -> Family:
    """Return the family of the runtime with this name; that of Python if this engine has no such runtime."""
    found = find_runtime(runtime)
    return found.family if found and found.family else Family.PYTHON
