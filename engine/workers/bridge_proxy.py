"""HTTP client of the server that an HTTP function's ``bootstrap`` starts. Standard library only, Python 3.9 syntax.

An instance is ready when the server's port accepts connections (FunctionGraph's rule for HTTP functions). Connections
are kept open and reused, the last used first. There are never more connections than requests that the instance may
serve at a time.
"""

import json
import socket
import time

from bridge_apig import BadEvent, read_event, write_reply
from bridge_http import BadMessage, Message, Reader
from bridge_loop import Connection, connect
from bridge_ports import PORT, PortMap
from bridge_process import CannotStart, listening_addresses
from worker_frames import INIT_FAILED, INIT_TIMEOUT, LOAD_TIMEOUT, OK, PREFIX, USER, Invocation, error_body

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_types import EngineLink

RETRY = 0.002  #: seconds between connection attempts while the server starts; the kernel offers no event for that
PORT_TIMEOUT = 1.0  #: seconds that the server of a just ended instance may still hold the port
EXIT_GRACE = 0.5  #: seconds for bootstrap's exit to be noticed; its status is more precise than a closed connection
SAFE_TO_REPEAT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))


class Exchange:
    """HTTP request that the function's server is to answer, and the ticket of its invocation."""

    def __init__(self, ticket: int, method: str, request: bytes) -> None:
        self.ticket, self.method, self.request = ticket, method, request


class Proxy:
    """HTTP client of the server that bootstrap starts."""

    def __init__(self, bridge: "EngineLink") -> None:
        self.bridge = bridge
        self.ports = PortMap(bridge.loop, self.try_port) if bridge.setup.get("maps_port") else None
        self.idle: list[Upstream] = []  #: upstreams, the last used at the end

    def open(self) -> "dict[str, str]":
        """Wait until the server's port is free, so that requests cannot reach another program.

        With mapped ports no check is needed. Raises CannotStart if another program keeps the port in use.
        """
        if self.ports is None:
            wait_for_port()
        return {}

    def prepare(self) -> None:
        if self.ports is not None:
            self.ports.install()

    def begin(self) -> None:
        if self.ports is not None:
            self.ports.listen()
        else:
            self.try_port()

        limit, code = self.bridge.setup["timeout"], LOAD_TIMEOUT
        if self.bridge.setup.get("initializer"):
            limit, code = self.bridge.setup["initializer_timeout"], INIT_TIMEOUT
        self.bridge.loop.later(limit, lambda: self.on_timeout(limit, code))

    def on_timeout(self, limit: int, code: int) -> None:
        """Tell where the server listens, if it cannot be reached. The engine would end the instance a moment later."""
        if self.bridge.is_ready:
            return
        found, mapped = [], self.ports.port if self.ports is not None else PORT
        for address, port in sorted(listening_addresses()):
            found.append(f"{address} port {PORT if port == mapped else port}")
        where = f"it listens on {', '.join(found)}" if found else "bootstrap has no server that listens"
        text = f"{PREFIX[code]}loading the code took longer than {limit} s: the server must listen on port {PORT} of "
        text += f"127.0.0.1 or 0.0.0.0, and {where}"
        self.bridge.ready(code, text, error_body(text, "TIMEOUT" if code == LOAD_TIMEOUT else "INIT_TIMEOUT"))

    def connect(self, done: "Callable[[socket.socket | None], object]") -> None:
        port = PORT if self.ports is None else self.ports.port
        connect(self.bridge.loop, ("127.0.0.1", port), done)

    def try_port(self) -> None:
        self.connect(self.on_tried)

    def on_tried(self, sock: "socket.socket | None") -> None:
        if sock is None:
            self.bridge.loop.later(RETRY, self.try_port)
            return
        self.idle.append(Upstream(self, sock))
        self.bridge.ready()
        self.bridge.resume_reading()

    def can_take_request(self) -> bool:
        return True  # the engine sends no more than the instance may take

    def invoke(self, invocation: Invocation) -> None:
        try:
            event = json.loads(invocation.event)
        except (ValueError, RecursionError):
            event = None
        try:
            method, request = read_event(event, invocation.id, invocation.headers(), self.bridge.setup)
        except BadEvent as problem:
            self.fail(invocation.ticket, str(problem), "BadEvent")
            return
        self.send(Exchange(invocation.ticket, method, request))

    def send(self, exchange: Exchange) -> None:
        while self.idle:
            upstream = self.idle.pop()
            if upstream.connection.alive():
                upstream.send(exchange)
                return
            upstream.connection.close()
        self.send_on_new_connection(exchange)

    def send_on_new_connection(self, exchange: Exchange) -> None:
        """Open a connection to the server and send the request.

        If the connection fails, call ``give_up`` after ``EXIT_GRACE`` seconds.
        """

        def connected(sock: "socket.socket | None") -> None:
            if sock is None:
                self.bridge.loop.later(EXIT_GRACE, lambda: self.give_up(exchange))
            else:
                Upstream(self, sock).send(exchange)

        self.connect(connected)

    def give_up(self, exchange: Exchange) -> None:
        """Fail the request and end the instance, because its server accepts no connections. A new instance may work."""
        self.fail(exchange.ticket, f"the server on port {PORT} no longer accepts connections", "ServerGone")
        self.bridge.end(1)

    def fail(self, ticket: int, text: str, kind: str) -> None:
        self.bridge.answer(ticket, USER, PREFIX[USER] + text, error_body(text, kind))


def wait_for_port() -> None:
    """Wait until the server's port is free.

    Raises CannotStart if another program still uses it after ``PORT_TIMEOUT``.
    """
    deadline = time.monotonic() + PORT_TIMEOUT
    while (problem := port_problem()) is not None:
        if time.monotonic() > deadline:
            text = f"port {PORT}, on which the function's server must listen, is not free: {problem}"
            raise CannotStart(INIT_FAILED, text + "; stop the program that uses it")
        time.sleep(RETRY)


def port_problem() -> "str | None":
    """Return the reason why the server could not listen on its port, or None if the port is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            return error.strerror
    return None


class Upstream:
    """Connection to the function's server, with one HTTP request at a time."""

    def __init__(self, proxy: Proxy, sock: socket.socket) -> None:
        self.proxy = proxy
        self.reader = Reader(proxy.bridge.limit, response=True)
        self.exchange: Exchange | None = None
        self.used = False  #: carried a request before this one
        self.response_started = False  #: part of the response has arrived
        self.connection = Connection(proxy.bridge.loop, sock, self.read, self.on_closed)

    def send(self, exchange: Exchange) -> None:
        self.exchange, self.response_started = exchange, False
        self.reader.bodiless = exchange.method == "HEAD"
        self.connection.write(exchange.request)

    def read(self, data: bytes) -> None:
        if self.exchange is None:  # unexpected data
            self.proxy.idle.remove(self)
            self.connection.close()
            return
        self.response_started = True
        try:
            message = self.reader.feed(data)
            while message is not None and message.status < 200:
                message = self.reader.feed(b"")
        except BadMessage as problem:
            self.fail_exchange(f"the server's response is not HTTP: {problem}", "BadResponse")
            return
        if message is not None:
            self.conclude(message)
        elif self.reader.head is not None and self.reader.head.size > self.reader.limit:
            exchange = self.release()
            self.proxy.bridge.too_large(exchange.ticket, self.reader.head.size)

    def on_closed(self) -> None:
        """Handle the end of the connection: use the response if the end completes it, otherwise fail the HTTP request.

        A request that the server has not begun to answer on a reused connection is sent again if its method allows
        that.
        """
        if self.exchange is None:
            self.proxy.idle.remove(self)
            return
        message = self.reader.end()
        if message is not None:
            self.conclude(message)
        elif self.used and not self.response_started and self.exchange.method in SAFE_TO_REPEAT:
            self.proxy.send_on_new_connection(self.release())
        else:
            text = "the server closed the connection before it had answered"
            self.proxy.bridge.loop.later(EXIT_GRACE, lambda: self.fail_exchange(text, "ConnectionClosed"))

    def conclude(self, message: Message) -> None:
        reply = write_reply(message)
        exchange, self.used = self.take_exchange(), True
        if message.lasting and not self.reader.buffer and not self.connection.closed:
            self.proxy.idle.append(self)
        else:
            self.connection.close()
        self.proxy.bridge.answer(exchange.ticket, OK, "", reply)

    def fail_exchange(self, text: str, kind: str) -> None:
        self.proxy.fail(self.release().ticket, text, kind)

    def release(self) -> Exchange:
        """Close the connection and return the HTTP request that it carried."""
        exchange = self.take_exchange()
        self.connection.close()
        return exchange

    def take_exchange(self) -> Exchange:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None  # callers have a response or an error for it
        return exchange
