"""HTTP server of the runtime API, from which the user's ``bootstrap`` fetches its events.

Standard library only, Python 3.9 syntax. The operation ``next`` waits until there is an event, without a time limit.
Clients that expect a status without an event, in order to ask again, accept this wait. The first call of ``next``
reports that the runtime is ready. Several clients may call ``next`` at a time if the instance serves several requests
at a time.
"""

import base64
import json
import os
import socket
from collections import deque
from urllib.parse import quote, urlsplit

from bridge_http import BadMessage, Message, Reader, write_answer, write_message
from bridge_loop import READ, Connection
from bridge_process import check_kernel, is_ours
from worker_frames import INIT_RAISED, KEYS, OK, PREFIX, USER, Invocation, error_body, wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker_types import EngineLink, Headers, Setup

NEXT, RESPONSE, ERROR, INIT_ERROR, CALLS = "next", "response", "error", "init error", "calls"


class Api:
    """HTTP server of the runtime API."""

    def __init__(self, bridge: "EngineLink", dialect: "Custom | Lambda") -> None:
        self.bridge, self.dialect = bridge, dialect
        self.waiting: deque[Client] = deque()  #: clients in ``next``, the longest waiting first
        self.undelivered: deque[Invocation] = deque()  #: invocations whose client closed before it received them
        self.running: dict[str, Invocation] = {}  #: invocations by request id

    def open(self) -> "dict[str, str]":
        """Listen on a free port. Return the environment variables that contain the API's address for bootstrap.

        Raises CannotStart if the kernel does not tell who connects.
        """
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(128)
        self.listener.setblocking(False)
        if self.bridge.setup["guarded"]:
            check_kernel(self.listener)
        self.bridge.loop.watch(self.listener, READ, self.accept)
        host, port = self.listener.getsockname()
        return self.dialect.variables(f"{host}:{port}")

    def prepare(self) -> None:
        """Do nothing in the child process before bootstrap: bootstrap needs only the variables from ``open``."""

    def begin(self) -> None:
        """Do nothing after the start of bootstrap, which sends the first request itself."""

    def can_take_request(self) -> bool:
        while self.waiting and not self.waiting[0].connection.alive():
            self.waiting.popleft()
        return bool(self.waiting)

    def invoke(self, invocation: Invocation) -> None:
        """Send the invocation as an answer to the client that has waited longest in ``next``."""
        self.running[invocation.id] = invocation
        self.waiting.popleft().deliver(invocation, self.dialect.headers(invocation))

    def accept(self, events: int) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:  # the client has closed it already
            return
        if not self.bridge.setup["guarded"] or is_ours(sock):
            Client(self, sock)
        else:
            sock.close()

    # --- requests of clients ---

    def add_waiting(self, client: "Client") -> None:
        if not self.bridge.is_ready:
            self.bridge.ready()
        self.waiting.append(client)
        self.redeliver()
        if self.waiting:
            self.bridge.resume_reading()

    def on_closed(self, client: "Client") -> None:
        """Handle the end of a client's connection.

        An invocation that it did not receive completely is sent to another client.
        """
        if client in self.waiting:
            self.waiting.remove(client)
        if client.invocation is not None and client.connection.unsent:
            self.undelivered.append(client.invocation)
            self.redeliver()

    def redeliver(self) -> None:
        while self.undelivered and self.can_take_request():
            self.invoke(self.undelivered.popleft())

    def conclude(self, client: "Client", action: str, request_id: str, message: Message) -> None:
        """Send the result or error that a client has reported for an invocation to the engine."""
        invocation = self.running.pop(request_id, None)
        if invocation is None:
            text = f"no request {request_id!r} waits for an answer: each is answered once"
            client.refuse(400, "InvalidRequestID", text)
        elif message.size > self.bridge.limit:
            self.bridge.too_large(invocation.ticket, message.size)
            text = f"the response may have at most {self.bridge.limit} bytes"
            client.refuse(413, "RequestEntityTooLarge", text)
        else:
            error = message.body if action == ERROR else streamed_error(message)
            if error is None:
                self.bridge.answer(invocation.ticket, OK, "", message.body)
            else:
                line, body = describe_error(error, message.get("lambda-runtime-function-error-type"))
                self.bridge.answer(invocation.ticket, USER, PREFIX[USER] + line, body)
            client.accept(self.dialect.ACCEPTED)

    def forward(self, client: "Client", request_id: str, message: Message) -> None:
        """Send calls of an invocation to the engine, with their parent, and its reply to the client as it comes."""
        invocation, access = self.running.get(request_id), self.bridge.setup.get("access")
        if invocation is None or not access:
            reason = f"request {request_id!r} does not run" if access else 'executor.function_role is "none"'
            client.refuse(403, "Forbidden", f"functions queue calls while they run: {reason}")
            return
        try:
            content = {**json.loads(message.body), "parent": request_id}
            for call in content["calls"]:
                invocation._number(call, json.dumps(call.get("event")))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            client.refuse(400, "BadRequest", 'send {"calls": [{"function": ..., "event": ...}, ...]}')
            return
        url, project = urlsplit(access["url"]), quote(access["project"], "")
        headers = [("Host", url.netloc), ("X-Auth-Token", access["token"]), ("Connection", "close")]
        headers.append(("Content-Type", "application/json"))
        request = write_message(f"POST /v2/{project}/fgs/calls HTTP/1.1", headers, json.dumps(content).encode())
        sock = socket.socket(socket.AF_UNIX if access["socket"] else socket.AF_INET)
        try:
            sock.connect(access["socket"] or (url.hostname, url.port))
        except OSError as error:
            client.refuse(503, "Unavailable", str(error))
            return
        to_client = client.connection.write
        Connection(self.bridge.loop, sock, to_client, lambda: to_client(b"", last=True)).write(request)

    def fail_start(self, client: "Client", message: Message) -> None:
        if self.bridge.is_ready:
            client.refuse(403, "InvalidStateTransition", "the runtime is initialized: it has asked for an event")
            return
        line, body = describe_error(message.body, message.get("lambda-runtime-function-error-type"))
        client.accept(self.dialect.ACCEPTED)
        self.bridge.ready(INIT_RAISED, PREFIX[INIT_RAISED] + line, body)


class Client:
    """Connection from a client in bootstrap, which sends one request at a time."""

    def __init__(self, api: Api, sock: socket.socket) -> None:
        self.api, self.reader = api, Reader(api.bridge.limit)
        self.invocation: Invocation | None = None  #: being sent
        self.continued = False
        self.lasting = True
        self.connection = Connection(api.bridge.loop, sock, self.read, lambda: api.on_closed(self))

    def read(self, data: bytes) -> None:
        try:
            message = self.reader.feed(data)
            if message is not None:
                self.serve(message)
            elif self.reader.head is not None and not self.continued:
                self.continued = True
                if self.reader.head.get("expect"):
                    self.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        except BadMessage as problem:
            self.connection.on_data = lambda data: None  # what follows a malformed request is ignored
            self.lasting = False
            self.refuse(400, "BadRequest", str(problem))

    def serve(self, message: Message) -> None:
        self.lasting, self.continued, self.invocation = message.lasting, False, None
        action, request_id = self.api.dialect.route(message.start[0], message.start[1].partition("?")[0])
        if message.get("origin") or message.get("sec-fetch-site"):
            self.refuse(403, "Forbidden", "requests from web pages are not allowed")
        elif action == NEXT:
            self.api.add_waiting(self)
        elif action in (RESPONSE, ERROR):
            self.api.conclude(self, action, request_id, message)
        elif action == CALLS:
            self.api.forward(self, request_id, message)
        elif action == INIT_ERROR:
            self.api.fail_start(self, message)
        else:
            self.refuse(404, "NotFound", "the runtime API has these: " + self.api.dialect.PATHS)

    def deliver(self, invocation: Invocation, headers: "Headers") -> None:
        self.invocation = invocation
        self.write(200, headers, invocation.event)

    def accept(self, status: int) -> None:
        self.write(status, [], b"")

    def refuse(self, status: int, kind: str, text: str) -> None:
        body = json.dumps({"errorMessage": text, "errorType": kind}).encode()
        self.write(status, [("Content-Type", "application/json")], body)

    def write(self, status: int, headers: "Headers", body: bytes) -> None:
        closing = [] if self.lasting else [("Connection", "close")]
        self.connection.write(write_answer(status, headers + closing, body), last=not self.lasting)


# --- the two runtime APIs ---


class Custom:
    """FunctionGraph's runtime API. Headers with keys are empty without an agency."""

    ROOT = "/v1/runtime/invocation/"
    ACCEPTED = 200  #: status for an accepted answer
    PATHS = f"GET {ROOT}request, POST {ROOT}response/<request id>, POST {ROOT}error/<request id>"

    def __init__(self, setup: "Setup") -> None:
        # Always sync: runtimes may omit the result of async invocations, but destinations need it.
        self.fixed = [("Content-Type", "application/json"), ("X-CFF-Invoke-Type", "sync")]
        keys = setup.get("keys", {})
        named = [(f"Security-{name}", field) for name, field in KEYS.items()] + list(KEYS.items())[:2]
        self.fixed += [("X-CFF-" + name, keys.get(field, "")) for name, field in named]
        self.fixed.append(("X-CFF-Auth-Token", os.environ.get("FUNCTIOND_TOKEN", "")))

    def variables(self, address: str) -> "dict[str, str]":
        return {"RUNTIME_API_ADDR": address}

    def route(self, method: str, path: str) -> "tuple[str | None, str]":
        """Return the action and the request id that an HTTP request names. The action is None for an unknown path."""
        if not path.startswith(self.ROOT):
            return None, ""
        what, _, request_id = path[len(self.ROOT) :].partition("/")
        if method == "GET":
            return (NEXT if what == "request" and not request_id else None), ""
        return (what if method == "POST" and what in (RESPONSE, ERROR, CALLS) else None), request_id

    def headers(self, invocation: Invocation) -> "Headers":
        return [*self.fixed, ("X-Cff-Request-Id", invocation.id), *invocation.headers()]


class Lambda:
    """AWS's runtime API of 2018-06-01."""

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
        if method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] in (RESPONSE, ERROR, CALLS):
            return parts[2], parts[1]
        return None, ""

    def headers(self, invocation: Invocation) -> "Headers":
        return [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.id),
            ("Lambda-Runtime-Deadline-Ms", str(invocation.deadline)),
            ("Lambda-Runtime-Invoked-Function-Arn", f"{self.arn}:{invocation.alias or self.version}"),
            ("Lambda-Runtime-Trace-Id", trace_id(invocation.id)),
            *invocation.headers(),
        ]


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


def frame(line: object) -> str:
    """Return a line of a stack trace. AWS's client in Go sends objects."""
    if isinstance(line, dict) and {"path", "line", "label"} <= line.keys():
        return f"{line['path']}:{line['line']} {line['label']}"
    return str(line)


def describe_error(body: bytes, kind: str) -> "tuple[str, bytes]":
    """Return the error that the user's runtime sent as one line, and as an error body in FunctionGraph's format.

    ``kind`` is the error type to use if the error contains none.
    """
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        error = body.decode("utf-8", "replace")
    if not isinstance(error, dict):
        error = {"errorMessage": error if isinstance(error, str) else json.dumps(error)}
    text, kind = str(error.get("errorMessage") or ""), str(error.get("errorType") or kind or "Error")
    trace = error.get("stackTrace") or error.get("trace") or []
    trace = [frame(line) for line in trace] if isinstance(trace, list) else [str(trace)]
    said = wishes(error.get("retryAfter"), error.get("retryable"), error.get("errorClasses"))
    return f"{kind}: {text}" if text else kind, error_body(text, kind, trace, said)
