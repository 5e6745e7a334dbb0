"""Source text that comes without a package: the file it becomes, and what runs when it is left out."""

from __future__ import annotations

import os
import re
from pathlib import PurePath

from engine.errors import CodeMissing, InvalidField
from engine.runtimes.catalog import Family, find_runtime

_MODULE = re.compile(r"[\w-]+([./][\w-]+)*", re.ASCII)
_NODE_SUFFIXES = (".js", ".mjs", ".cjs")
_TEMPLATES = {
    Family.PYTHON: 'def {0}(event, context):\n    return {{"statusCode": 200, "body": event}}\n',
    Family.NODE: "exports.{0} = async (event, context) => ({{ statusCode: 200, body: event }})\n",
}


def inline_file(handler: str, runtime: str, filename: str = "") -> tuple[str, int]:
    """Path and mode: for Python ``index.handler`` lives in ``index.py``; a runtime without handlers has ``bootstrap``.

    ``filename``, as the caller has it, tells a module of Node.js (``.mjs``) from a script. Raises InvalidField.
    """
    family = _family(runtime)
    if not family.interpreted:
        return "bootstrap", 0o755
    module = handler.rpartition(".")[0]
    if not _MODULE.fullmatch(module):
        raise InvalidField("handler", handler, "needs the form file.function, such as index.handler")
    if family is Family.PYTHON:
        return module.replace(".", os.sep) + ".py", 0o644
    suffix = PurePath(filename).suffix
    return module + (suffix if suffix in _NODE_SUFFIXES else ".js"), 0o644


def template(handler: str, runtime: str) -> bytes:
    """Code that answers with its event. Raises CodeMissing where nobody can guess what is wanted."""
    text = _TEMPLATES.get(_family(runtime))
    if text is None:
        raise CodeMissing("inline")
    return text.format(handler.rpartition(".")[2]).encode()


def _family(runtime: str) -> Family:
    known = find_runtime(runtime)
    return known.family if known and known.family else Family.PYTHON
