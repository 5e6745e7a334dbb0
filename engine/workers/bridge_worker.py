"""Instance of a function that brings its own runtime: bridge between the frames of the engine's protocol and HTTP.

Run as ``python -I bridge_worker.py <family> <descriptor>``; family is custom, lambda or http. The bridge starts the
user's ``bootstrap``. For custom and lambda, the bridge then serves the runtime API (``bridge_api``). For http, the
bridge is a client of bootstrap's HTTP server (``bridge_proxy``). Standard library only, Python 3.9 syntax, no import of
the engine. ``engine/runtimes/protocol.py`` describes the frames. The bridge has one thread and one event loop.
Bootstrap does not inherit the engine's socket. Bootstrap writes its output to the stdout and stderr pipes of this
process; the bridge itself writes nothing to the pipes.
"""

import json
import os
import signal
import socket
import sys
import time
from collections import namedtuple

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bridge_api import Api
from bridge_dialects import Custom, Lambda
from bridge_loop import READ, Loop
from bridge_outcomes import OK, TOO_LARGE, CannotStart, error_body
from bridge_peers import is_ours
from bridge_process import Bootstrap, become_subreaper, exit_with_parent, find_bootstrap
from bridge_proxy import Proxy

del sys.path[0]

SETUP, INVOKE, STOP = 1, 2, 3
READY, DONE = 1, 2
HEAD = 5  #: bytes of length and kind
LONGEST_MESSAGE = 4096

Invocation = namedtuple("Invocation", "ticket request_id alias event deadline")  # deadline: ms since the epoch


class EngineClosed(Exception):
    """End of the connection to the engine, which has closed the socket or has exited."""


class Wire:
    def __init__(self, fd):
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)

    def peek(self):
        """Return the kind of the next frame without reading the frame, or None if no frame has arrived.

        Raises EngineClosed if the engine has closed the socket.
        """
        try:
            head = self.socket.recv(HEAD, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        if not head:
            raise EngineClosed
        return head[4] if len(head) == HEAD else None

    def read(self):
        """Wait for the next frame and return its kind and body.

        Raises EngineClosed if the engine has closed the socket.
        """
        head = self.exactly(HEAD)
        return head[4], self.exactly(int.from_bytes(head[:4], "big") - 1)

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data), socket.MSG_WAITALL)
            if not more:
                raise EngineClosed
            data += more
        return data

    def answer(self, kind, ticket, code, memory, message, result):
        text = message[:LONGEST_MESSAGE].encode("utf-8", "replace")
        head = b"".join(
            (
                (15 + len(text) + len(result)).to_bytes(4, "big"),
                bytes((kind,)),
                ticket.to_bytes(4, "big"),
                code.to_bytes(2, "big"),
                memory.to_bytes(4, "big"),
                len(text).to_bytes(4, "big"),
            )
        )
        self.socket.sendall(head + text + result)


class Bridge:
    """Connection between the engine and ``Api`` or ``Proxy``, by which invocations reach the user's bootstrap."""

    def __init__(self, wire, family, setup):
        self.wire, self.setup, self.loop = wire, setup, Loop()
        self.limit = setup["result_limit"]
        self.is_ready = self.stopping = self.watching = False
        self.bootstrap = None
        if family == "http":
            self.front = Proxy(self)
        else:
            self.front = Api(self, Lambda(setup) if family == "lambda" else Custom(setup))

    def run(self):
        try:
            variables = self.front.open()
            path = find_bootstrap([self.setup["code"], *self.setup.get("layers", [])])
            self.bootstrap = Bootstrap(path, environment(self.setup) | variables, self.front.prepare)
        except CannotStart as problem:
            self.ready(problem.code, str(problem), error_body(str(problem), "FunctionLoadError"))
            return
        self.loop.watch(self.bootstrap.pidfd, READ, self.bootstrap_ended)
        self.front.begin()
        self.watch_engine()
        self.loop.run()

    # --- messages to the engine ---

    def ready(self, code=OK, message="", result=b""):
        """Report to the engine that the instance is ready, or the error that prevents it. Call once.

        The engine ends the instance if ``code`` is an error.
        """
        self.is_ready = True
        self.wire.answer(READY, 0, code, self.memory(), message, result)

    def answer(self, ticket, code, message, result):
        if len(result) > self.limit:
            self.too_large(ticket, len(result))
        else:
            self.wire.answer(DONE, ticket, code, self.memory(), message, result)

    def too_large(self, ticket, size):
        text = f"the response has {size} bytes, more than the {self.limit} allowed"
        self.wire.answer(DONE, ticket, TOO_LARGE, self.memory(), text, error_body(text, "ResponseTooLarge"))

    def accepts_peer(self, sock):
        """Return whether a client may use the runtime API.

        If ``guarded`` is set, only descendants of this process may.
        """
        return not self.setup["guarded"] or is_ours(sock)

    def resume_reading(self):
        """Read invocations from the engine again. Call when ``Api`` or ``Proxy`` can take another invocation."""
        if not self.watching:
            self.watch_engine()
            self.from_engine(READ)

    def memory(self):
        return self.bootstrap.memory() if self.bootstrap else 0

    # --- called by the loop ---

    def watch_engine(self):
        self.watching = True
        self.loop.watch(self.wire.socket, READ, self.from_engine)

    def from_engine(self, events):
        kind = self.wire.peek()
        if kind == INVOKE:
            # Unread until a client requests it: if bootstrap exits before, the engine detects that the invocation has
            # not run.
            if self.front.can_take_request():
                self.front.invoke(parse_invocation(self.wire.read()[1], self.setup["timeout"]))
            else:
                self.watching = False
                self.loop.unwatch(self.wire.socket)
        elif kind == STOP:
            self.wire.read()
            self.stopping = True
            self.bootstrap.signal(signal.SIGTERM)
        elif kind is not None:
            raise EngineClosed

    def bootstrap_ended(self, events):
        if self.stopping:
            os._exit(0)
        self.bootstrap.exit_like_bootstrap()

    def end(self, status):
        """Kill bootstrap and all its descendants, and exit with this status."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.bootstrap is not None:
            self.bootstrap.signal(signal.SIGKILL)
        os._exit(status)


def parse_invocation(body, timeout):
    ticket = int.from_bytes(body[:4], "big")
    split = 6 + body[4]
    end = split + body[5]
    deadline = int((time.time() + timeout) * 1000)
    return Invocation(ticket, body[6:split].decode(), body[split:end].decode(), body[end:], deadline)


def environment(setup):
    """Return the environment for bootstrap: that of this process, with the paths of the function's layers added."""
    variables = dict(os.environ)
    for layer in setup.get("layers", []):
        for name, folders in (
            ("PATH", ("bin",)),
            ("LD_LIBRARY_PATH", ("lib",)),
            ("PYTHONPATH", ("python", "")),
            ("NODE_PATH", ("nodejs/node_modules", "node_modules")),
        ):
            found = [os.path.join(layer, folder) for folder in folders if os.path.isdir(os.path.join(layer, folder))]
            existing = [variables[name]] if variables.get(name) else []
            if found:
                variables[name] = ":".join(existing + found)
    return variables


def raise_engine_closed(number, frame):
    raise EngineClosed


def main(family, fd):
    wire = Wire(fd)
    bridge = None
    try:
        # SIGTERM instead of SIGKILL, because descendants of bootstrap must be killed, too. The socket alone does not
        # suffice: it is not always watched.
        signal.signal(signal.SIGTERM, raise_engine_closed)
        exit_with_parent(os.getppid(), signal.SIGTERM)
        become_subreaper()
        kind, body = wire.read()
        if kind == SETUP:
            bridge = Bridge(wire, family, json.loads(body))
            bridge.run()
    except (EngineClosed, ConnectionError):
        if bridge is not None:
            bridge.end(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
