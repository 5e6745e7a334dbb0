"""Paths, headers, variables and errors of two runtime APIs. Standard library only, Python 3.9 syntax.

``Custom`` is FunctionGraph's runtime API, ``Lambda`` is AWS's of 2018-06-01.
"""

import base64
import os

from bridge_http import Message
from bridge_wire import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker_types import Headers, Setup

NEXT, RESPONSE, ERROR, INIT_ERROR = "next", "response", "error", "init error"


class Custom:
    """FunctionGraph's runtime API. Headers with keys of an agency are empty, because this engine has no agencies."""

    ROOT = "/v1/runtime/invocation/"
    ACCEPTED = 200  #: status for an accepted answer
    PATHS = f"GET {ROOT}request, POST {ROOT}response/<request id>, POST {ROOT}error/<request id>"
    KEYS = tuple(
        "X-CFF-" + name
        for name in (
            "Access-Key",
            "Secret-Key",
            "Security-Access-Key",
            "Security-Secret-Key",
            "Security-Token",
            "Auth-Token",
        )
    )

    def __init__(self, setup: "Setup") -> None:
        # Always sync: runtimes may omit the result of async invocations, but destinations need it.
        self.fixed = [("Content-Type", "application/json"), ("X-CFF-Invoke-Type", "sync")]
        self.fixed += [(name, "") for name in self.KEYS]

    def variables(self, address: str) -> "dict[str, str]":
        return {"RUNTIME_API_ADDR": address}

    def route(self, method: str, path: str) -> "tuple[str | None, str]":
        """Return the action and the request id that an HTTP request names. The action is None for an unknown path."""
        if not path.startswith(self.ROOT):
            return None, ""
        what, _, request_id = path[len(self.ROOT) :].partition("/")
        if method == "GET":
            return (NEXT if what == "request" and not request_id else None), ""
        return (what if method == "POST" and what in (RESPONSE, ERROR) else None), request_id

    def headers(self, invocation: Invocation) -> "Headers":
        return [*self.fixed, ("X-Cff-Request-Id", invocation.request_id), *trace_header(invocation)]


class Lambda:
    """AWS's runtime API."""

    ROOT = "/2018-06-01/runtime/"
    ACCEPTED = 202
    PATHS = (
        f"GET {ROOT}invocation/next, POST {ROOT}invocation/<request id>/response, "
        f"POST {ROOT}invocation/<request id>/error, POST {ROOT}init/error"
    )

    def __init__(self, setup: "Setup") -> None:
        self.setup = setup
        self.version = "$LATEST" if setup["version"] == "latest" else setup["version"]
        self.region = os.environ.get("RUNTIME_REGION", "")
        self.arn = f"arn:aws:lambda:{self.region}:{setup['project']}:function:{setup['name']}"

    def variables(self, address: str) -> "dict[str, str]":
        setup = self.setup
        return {
            "AWS_LAMBDA_RUNTIME_API": address,
            "AWS_LAMBDA_FUNCTION_NAME": setup["name"],
            "AWS_LAMBDA_FUNCTION_VERSION": self.version,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(setup["memory"]),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + setup["name"],
            "AWS_LAMBDA_LOG_STREAM_NAME": f"[{self.version}]{setup['instance']}",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "LAMBDA_TASK_ROOT": setup["code"],
            "LAMBDA_RUNTIME_DIR": setup["code"],
            "_HANDLER": setup["handler"],
        }

    def route(self, method: str, path: str) -> "tuple[str | None, str]":
        """Return the action and the request id that an HTTP request names. The action is None for an unknown path."""
        parts = path[len(self.ROOT) :].split("/") if path.startswith(self.ROOT) else []
        if method == "GET":
            return (NEXT if parts == ["invocation", "next"] else None), ""
        if method == "POST" and parts == ["init", "error"]:
            return INIT_ERROR, ""
        if method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] in (RESPONSE, ERROR):
            return parts[2], parts[1]
        return None, ""

    def headers(self, invocation: Invocation) -> "Headers":
        return [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(invocation.deadline)),
            ("Lambda-Runtime-Invoked-Function-Arn", f"{self.arn}:{invocation.alias or self.version}"),
            ("Lambda-Runtime-Trace-Id", trace_id(invocation.request_id)),
            *trace_header(invocation),
        ]


def trace_header(invocation: Invocation) -> "Headers":
    return [("traceparent", invocation.traceparent)] if invocation.traceparent else []


def trace_id(request_id: str) -> str:
    """Return a trace id for an invocation, in the format of AWS X-Ray and marked as not sampled."""
    digits = request_id.replace("-", "").ljust(32, "0")
    return f"Root=1-{digits[:8]}-{digits[8:32]};Parent={digits[16:32]};Sampled=0"


def streamed_error(message: Message) -> "bytes | None":
    """Return the error that a client reported in the trailers of a streamed response, or None if there is none."""
    if not message.get("lambda-runtime-function-error-type"):
        return None
    try:
        return base64.b64decode(message.get("lambda-runtime-function-error-body"))
    except ValueError:
        return b""
