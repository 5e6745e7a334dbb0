"""HTTP server of the runtime API, from which the user's ``bootstrap`` fetches its events.

Standard library only, Python 3.9 syntax. The operation ``next`` waits until there is an event, without a time limit.
Clients that expect a status without an event, in order to ask again, accept this wait. The first call of ``next``
reports that the runtime is ready. Several clients may call ``next`` at a time if the instance serves several requests
at a time.
"""

import json
import socket
from collections import deque

from bridge_dialects import ERROR, INIT_ERROR, NEXT, RESPONSE, Custom, Lambda, streamed_error
from bridge_http import BadMessage, Message, Reader, write_answer
from bridge_loop import READ, Connection
from bridge_outcomes import INIT_RAISED, OK, PREFIX, USER, describe_error
from bridge_peers import check_kernel, is_ours
from bridge_wire import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from worker_types import EngineLink, Headers


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
        self.running[invocation.request_id] = invocation
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
        self.connection = Connection(api.bridge.loop, sock, self.read, self.on_closed)

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
            self.connection.on_data = self.ignore
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
        elif action == INIT_ERROR:
            self.api.fail_start(self, message)
        else:
            self.refuse(404, "NotFound", "the runtime API has these: " + self.api.dialect.PATHS)

    def ignore(self, data: bytes) -> None:
        """Ignore further data of a client that has sent a malformed request."""

    def on_closed(self) -> None:
        self.api.on_closed(self)

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
