"""Test functions with their own ``bootstrap``: for the platform's runtime API, AWS Lambda's, and HTTP functions."""

from __future__ import annotations

import base64
import json
import shlex
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import awslambdaric

from engine.runtimes.interpreters import own_interpreter
from tests.contracts.dialect import Dialect

#: Actions of all of them, given the request id.
_DEEDS = """
import json, os, signal, sys, threading

STARTS = 1
here = threading.Barrier(2)


def deed(wish, request_id):
    do, value = wish["do"], wish["with"]
    if do == "echo":
        return json.dumps(value)
    if do == "text":
        return "straße ✓"
    if do == "nothing":
        return ""
    if do == "large":
        return "x" * value
    if do == "fail":
        raise LookupError("no order")
    if do == "ask":
        error = LookupError("no order")
        error.said = {"retryAfter" if name == "retry_after" else name: said for name, said in value.items()}
        raise error
    if do == "say":
        print(value, flush=True)
        print("!", value, file=sys.stderr, flush=True)
        return ""
    if do == "pid":
        return "%d %s" % (os.getpid(), os.environ["FUNCTIOND_INSTANCE"])  # in a sandbox all have the same process id
    if do == "who":
        return request_id
    if do == "data":
        return os.environ[value]
    if do == "hang":
        threading.Event().wait()
    if do == "leave":
        os._exit(3)
    if do == "initialised":
        return str(STARTS)
    if do == "meet":
        here.wait()
        return ""
"""

_CUSTOM = """
import http.client, threading
from deeds import *

ROOT = "/v1/runtime/invocation/"


def serve():
    api = http.client.HTTPConnection(os.environ["RUNTIME_API_ADDR"])
    while True:
        api.request("GET", ROOT + "request")
        response = api.getresponse()
        event, request_id = json.loads(response.read()), response.headers["X-Cff-Request-Id"]
        try:
            answer, body = "response/", deed(event, request_id)
        except Exception as error:
            answer, body = "error/", json.dumps(
                {"errorMessage": str(error), "errorType": type(error).__name__, **getattr(error, "said", {})}
            )
        api.request("POST", ROOT + answer + request_id, body.encode())
        api.getresponse().read()


threading.Thread(target=serve).start()
serve()
"""

_LAMBDA = """
import json
from deeds import deed


def handler(event, context):
    result = deed(event, context.aws_request_id)
    return json.loads(result) if event["do"] == "echo" else result
"""

_HTTP = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from deeds import *


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = deed(wish, self.headers["X-CFF-Request-Id"]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""

_PYTHON = shlex.quote(own_interpreter().path)  # also available in a sandbox
_SITE = Path(awslambdaric.__file__).parents[1]
_LAMBDA_CLIENT = ("awslambdaric", "simplejson", "snapshot_restore_py.py", f"runtime_client{EXTENSION_SUFFIXES[0]}")


def _gateway_event(wish: dict[str, Any]) -> dict[str, Any]:
    return {"httpMethod": "POST", "path": "/", "headers": {}, "body": json.dumps(wish)}


def _gateway_reply(result: bytes) -> bytes:
    reply = json.loads(result)
    assert (reply["statusCode"], reply["isBase64Encoded"]) == (200, True)
    return base64.b64decode(reply["body"])


def _text_of(result: bytes) -> bytes:
    """Decode a JSON text; Lambda's client sends every result as JSON."""
    value = json.loads(result)
    return value.encode() if isinstance(value, str) else result


CUSTOM = Dialect(
    runtime="Custom",
    files={"bootstrap": f"#!/bin/sh\nexec {_PYTHON} serve.py\n", "serve.py": _CUSTOM, "deeds.py": _DEEDS},
    lacks=frozenset({"bad"}),
)
LAMBDA = Dialect(
    runtime="Lambda",
    files={
        "bootstrap": f"#!/bin/sh\nexec {_PYTHON} -m awslambdaric $_HANDLER\n",
        "index.py": _LAMBDA,
        "deeds.py": _DEEDS,
    },
    packages=tuple(_SITE / name for name in _LAMBDA_CLIENT),
    lacks=frozenset({"ask", "bad", "meet"}),
    result=_text_of,
)
HTTP = Dialect(
    runtime="http",
    files={"bootstrap": f"exec {_PYTHON} serve.py", "serve.py": _HTTP, "deeds.py": _DEEDS},
    lacks=frozenset({"ask", "bad", "fail", "large"}),  # an HTTP function fails by a status, and its replies are base64
    event=_gateway_event,
    result=_gateway_reply,
)
