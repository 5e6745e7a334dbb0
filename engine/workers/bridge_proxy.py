"""HTTP functions: the client of the server that ``bootstrap`` starts. Standard library only, Python 3.9 syntax.

An instance is ready when its port takes connections (spec triggers_runtime, section 4.5). Connections are kept and
used again, the last one first; there are never more than the instance has requests.
"""

import socket
import time

from bridge_apig import BadEvent, read_event, write_reply
from bridge_http import BadMessage, Reader
from bridge_loop import Connection, connect
from bridge_outcomes import INIT_FAILED, OK, PREFIX, USER, CannotStart, error_body
from bridge_ports import PORT, PortMap

RETRY = 0.01  #: seconds between attempts to connect while the server starts; there is no event to wait for
LETTING_GO = 1.0  #: seconds that the server of an instance which has just ended may still hold the port
PARTING = 0.5  #: seconds for bootstrap's end to be seen, which tells more than the end of a connection
SAFE_TO_REPEAT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"))


class Exchange:
    """A request on its way, and the invocation that it is for."""

    def __init__(self, ticket, method, request):
        self.ticket, self.method, self.request = ticket, method, request


class Proxy:
    def __init__(self, bridge):
        self.bridge = bridge
        self.ports = PortMap(bridge.loop, self.try_port) if bridge.setup.get("maps_port") else None
        self.idle = []  #: upstreams, the one used last at the end

    def open(self):
        """Nobody may listen yet, lest this function's requests go to a stranger. Raises CannotStart."""
        if self.ports is None:
            wait_for_port()
        return {}

    def prepare(self):
        if self.ports is not None:
            self.ports.install()

    def begin(self):
        if self.ports is not None:
            self.ports.listen()
        else:
            self.try_port()

    def connect(self, done):
        port = PORT if self.ports is None else self.ports.port
        connect(self.bridge.loop, ("127.0.0.1", port), done)

    def try_port(self):
        self.connect(self.tried)

    def tried(self, sock):
        if sock is None:
            self.bridge.loop.later(RETRY, self.try_port)
            return
        self.idle.append(Upstream(self, sock))
        self.bridge.ready()
        self.bridge.invite()

    def wants_request(self):
        return True  # the engine sends no more than the instance may have

    def invoke(self, invocation):
        try:
            method, request = read_event(invocation, self.bridge.setup)
        except BadEvent as problem:
            self.fail(invocation.ticket, str(problem), "BadEvent")
            return
        self.send(Exchange(invocation.ticket, method, request))

    def send(self, exchange):
        while self.idle:
            upstream = self.idle.pop()
            if upstream.connection.alive():
                upstream.send(exchange)
                return
            upstream.connection.close()
        self.send_anew(exchange)

    def send_anew(self, exchange):
        """On a new connection."""

        def connected(sock):
            if sock is None:
                self.bridge.loop.later(PARTING, lambda: self.give_up(exchange))
            else:
                Upstream(self, sock).send(exchange)

        self.connect(connected)

    def give_up(self, exchange):
        """There is no server any more: another instance may do better."""
        self.fail(exchange.ticket, "the server on port %d takes no connections any more" % PORT, "ServerGone")
        self.bridge.end(1)

    def fail(self, ticket, text, kind):
        self.bridge.answer(ticket, USER, PREFIX[USER] + text, error_body(text, kind))


def wait_for_port():
    """Until it can be listened on. Raises CannotStart."""
    max_wait = time.monotonic() + LETTING_GO
    while (problem := port_problem()) is not None:
        if time.monotonic() > max_wait:
            text = "port %d, where the function's server belongs, cannot be had: %s; end what uses it" % (PORT, problem)
            raise CannotStart(INIT_FAILED, text)
        time.sleep(RETRY)


def port_problem():
    """Why the port cannot be listened on; None if it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            return error.strerror
    return None


class Upstream:
    """A connection to the server; it has one request at a time."""

    def __init__(self, proxy, sock):
        self.proxy = proxy
        self.reader = Reader(proxy.bridge.limit, response=True)
        self.exchange = None
        self.used = False  #: it carried a request before this one
        self.touched = False  #: some of the response is there
        self.connection = Connection(proxy.bridge.loop, sock, self.read, self.leave)

    def send(self, exchange):
        self.exchange, self.touched = exchange, False
        self.reader.bodiless = exchange.method == "HEAD"
        self.connection.write(exchange.request)

    def read(self, data):
        if self.exchange is None:  # nobody has asked
            self.proxy.idle.remove(self)
            self.connection.close()
            return
        self.touched = True
        try:
            message = self.reader.feed(data)
            while message is not None and message.status < 200:
                message = self.reader.feed(b"")
        except BadMessage as problem:
            self.break_off("the server's response is no HTTP: %s" % problem, "BadResponse")
            return
        if message is not None:
            self.conclude(message)
        elif self.reader.head is not None and self.reader.head.size > self.reader.limit:
            exchange = self.release()
            self.proxy.bridge.too_large(exchange.ticket, self.reader.head.size)

    def leave(self):
        """The server has closed the connection: that may end a response, and is an error otherwise."""
        if self.exchange is None:
            self.proxy.idle.remove(self)
            return
        message = self.reader.end()
        if message is not None:
            self.conclude(message)
        elif self.used and not self.touched and self.exchange.method in SAFE_TO_REPEAT:
            self.proxy.send_anew(self.release())
        else:
            self.proxy.bridge.loop.later(PARTING, self.lose)

    def lose(self):
        self.break_off("the server closed the connection before it had answered", "ConnectionClosed")

    def conclude(self, message):
        reply = write_reply(message)
        exchange, self.exchange, self.used = self.exchange, None, True
        if message.lasting and not self.reader.buffer and not self.connection.closed:
            self.proxy.idle.append(self)
        else:
            self.connection.close()
        self.proxy.bridge.answer(exchange.ticket, OK, "", reply)

    def break_off(self, text, kind):
        self.proxy.fail(self.release().ticket, text, kind)

    def release(self):
        """The exchange, of which nothing more will come here."""
        exchange, self.exchange = self.exchange, None
        self.connection.close()
        return exchange
