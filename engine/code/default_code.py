"""Code of one file: where inline source is stored, and the default code of a function that is created without code.

A Python or Node.js handler returns its event in a reply for HTTP clients, as the platform's default code does. The
default ``bootstrap`` is a Python program that does the same through the runtime API, or a server that replies with the
request.
"""

from __future__ import annotations

import ast
import io
import os
import re
import stat
import zipfile
from pathlib import PurePath

from engine.errors import CodeMissing, InvalidField
from engine.runtimes.catalog import Family, family_of, warning_of

_MOMENT = (1980, 1, 1, 0, 0, 0)  #: earliest time that a zip file can contain: equal code gives equal packages

_PYTHON = """\
import json


def {0}(event, context):
    return {{
        "statusCode": 200,
        "isBase64Encoded": False,
        "headers": {{"Content-Type": "application/json"}},
        "body": json.dumps(event),
    }}
"""
_NODE = """\
exports.{0} = async (event, context) => ({{
  statusCode: 200,
  isBase64Encoded: false,
  headers: {{ 'Content-Type': 'application/json' }},
  body: JSON.stringify(event),
}});
"""
_NODE_MODULE = _NODE.replace("exports.{0} =", "export const {0} =")
#: Client of a runtime API: the variable with its address, path of the next event, header of its id, path of the reply.
_CLIENT = """\
#!/usr/bin/env python3
import http.client
import json
import os

api = http.client.HTTPConnection(os.environ["{0}"])
while True:
    api.request("GET", "{1}")
    response = api.getresponse()
    event, request_id = json.loads(response.read() or b"null"), response.headers["{2}"]
    reply = {{
        "statusCode": 200,
        "isBase64Encoded": False,
        "headers": {{"Content-Type": "application/json"}},
        "body": json.dumps(event),
    }}
    api.request("POST", "{3}".format(request_id), json.dumps(reply).encode())
    api.getresponse().read()
"""
_CUSTOM = _CLIENT.format(
    "RUNTIME_API_ADDR",
    "/v1/runtime/invocation/request",
    "X-Cff-Request-Id",
    "/v1/runtime/invocation/response/{}",
)
_LAMBDA = _CLIENT.format(
    "AWS_LAMBDA_RUNTIME_API",
    "/2018-06-01/runtime/invocation/next",
    "Lambda-Runtime-Aws-Request-Id",
    "/2018-06-01/runtime/invocation/{}/response",
)
_HTTP = """\
#!/usr/bin/env python3
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def reply(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode("utf-8", "replace")
        content = json.dumps({"method": self.command, "path": self.path, "body": body}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = reply

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
_HANDLERS = {Family.PYTHON: _PYTHON, Family.NODE: _NODE}
_BOOTSTRAPS = {Family.CUSTOM: _CUSTOM, Family.LAMBDA: _LAMBDA, Family.HTTP: _HTTP}


def default_code(kind: str, handler: str, runtime: str, path: str = "") -> bytes:
    """Return the default code of a function: source for the kind ``inline``, a package for ``zip``.

    Source is stored in the file ``path``; a package has its own in the file that the handler names. Raises CodeMissing
    if ``handler`` is empty, as that of a dependency, which has no default code.
    """
    if not handler:
        raise CodeMissing(kind, "depend_type", "depend_file")
    name, family = handler.rpartition(".")[2], family_of(runtime) or Family.PYTHON
    handlers = _NODE_MODULE if path.endswith(".mjs") else _HANDLERS.get(family, "")
    text = handlers.format(name) if family.interpreted else _BOOTSTRAPS[family]
    return _zipped(text.encode(), *inline_file(handler, runtime)) if kind == "zip" else text.encode()


def _zipped(source: bytes, path: str, mode: int) -> bytes:
    entry = zipfile.ZipInfo(path, _MOMENT)
    entry.external_attr = (stat.S_IFREG | mode) << 16
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(entry, source)
    return packed.getvalue()


_MODULE = re.compile(r"[\w-]+([./][\w-]+)*", re.ASCII)
_NODE_SUFFIXES = (".js", ".mjs", ".cjs")


def check_inline(source: bytes, runtime: str) -> None:
    """Raise InvalidField if inline source of Python 2 has syntax that fails in Python 3, which runs it."""
    if warning := warning_of(runtime):
        try:
            ast.parse(source.decode("utf-8-sig"))
        except SyntaxError as error:
            text = source.decode(errors="replace")
            raise InvalidField("func_code", text, f"{warning}; line {error.lineno}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError):
            return  # what cannot be parsed here is left to the function's interpreter


def inline_file(handler: str, runtime: str, filename: str = "") -> tuple[str, int]:
    """Return path and mode of the file for inline source: ``index.py`` for the Python handler ``index.handler``.

    Runtimes without an interpreter use ``bootstrap``. The suffix of the caller's ``filename`` distinguishes a module of
    Node.js (``.mjs``) from a script. Raises InvalidField if the handler of an interpreted runtime does not have
    the form ``file.function``.
    """
    family = family_of(runtime) or Family.PYTHON
    if not family.interpreted:
        return "bootstrap", 0o755
    module = handler.rpartition(".")[0]
    if not _MODULE.fullmatch(module):
        raise InvalidField("handler", handler, "needs the form file.function, such as index.handler")
    if family is Family.PYTHON:
        return module.replace(".", os.sep) + ".py", 0o644
    suffix = PurePath(filename).suffix
    return module + (suffix if suffix in _NODE_SUFFIXES else ".js"), 0o644
