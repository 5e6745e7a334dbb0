"""Instance of a function that brings its own runtime: bridge between the frames of the engine's protocol and HTTP.

Run by ``run`` in a forked process, or as ``python -I bridge_worker.py <family> <descriptor>``; family is custom, lambda
or http. The bridge starts the user's ``bootstrap``. For custom and lambda, it then serves the runtime API
(``bridge_api``). For http, it is a client of bootstrap's HTTP server (``bridge_proxy``). Standard library only, Python
3.9 syntax, no import of the engine. ``engine/runtimes/protocol.py`` describes the frames. The bridge has one thread and
one event loop. Bootstrap does not inherit the engine's socket. Bootstrap writes its output to the stdout and stderr
pipes of this process; the bridge itself writes nothing to the pipes.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from bridge_api import Api, Custom, Lambda
from bridge_loop import READ, Loop
from bridge_process import CHILD_SUBREAPER, Bootstrap, CannotStart, exit_with_parent, find_bootstrap, prctl
from bridge_program import advice_on
from bridge_proxy import Proxy
from worker_frames import (
    CANCELLED,
    DONE,
    INIT_FAILED,
    INVOKE,
    NOTICE,
    OK,
    PREFIX,
    READY,
    SETUP,
    STOP,
    TIMEOUT,
    TOO_LARGE,
    Invocation,
    answer_frame,
    error_body,
)

del sys.path[0]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

    from worker_types import Setup


HEAD = 5  #: bytes of length and kind of a frame


class EngineClosed(Exception):
    """End of the connection to the engine, which has closed the socket or has exited."""


class Wire:
    """Socket to the engine."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        self.socket = socket.socket(fileno=fd)

    def peek(self) -> "int | None":
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

    def read(self) -> "tuple[int, bytes]":
        """Wait for the next frame and return its kind and body.

        Raises EngineClosed if the engine has closed the socket.
        """
        head = self.exactly(HEAD)
        return head[4], self.exactly(int.from_bytes(head[:4], "big") - 1)

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data), socket.MSG_WAITALL)
            if not more:
                raise EngineClosed
            data += more
        return data

    def answer(self, kind: int, ticket: int, code: int, memory: int, message: str, result: bytes) -> None:
        self.socket.sendall(answer_frame(kind, ticket, code, memory, message, result))


class Bridge:
    """Connection between the engine and ``Api`` or ``Proxy``, by which invocations reach the user's bootstrap."""

    def __init__(self, wire: Wire, family: str, setup: "Setup") -> None:
        self.wire, self.setup, self.loop = wire, setup, Loop()
        self.limit = setup["result_limit"]
        self.is_ready = self.stopping = self.watching = False
        self.bootstrap: Bootstrap | None = None
        self.front: Api | Proxy
        if family == "http":
            self.front = Proxy(self)
        else:
            self.front = Api(self, Lambda(setup) if family == "lambda" else Custom(setup))

    def run(self) -> None:
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

    def ready(self, code: int = OK, message: str = "", result: bytes = b"") -> None:
        """Report to the engine that the instance is ready, or the error that prevents it. Call once.

        The engine ends the instance if ``code`` is an error.
        """
        self.is_ready = True
        self.wire.answer(READY, 0, code, self.memory(), message, result)

    def answer(self, ticket: int, code: int, message: str, result: bytes) -> None:
        if len(result) > self.limit:
            self.too_large(ticket, len(result))
        else:
            self.wire.answer(DONE, ticket, code, self.memory(), message, result)

    def too_large(self, ticket: int, size: int) -> None:
        text = f"the response has {size} bytes, more than the {self.limit} allowed"
        self.wire.answer(DONE, ticket, TOO_LARGE, self.memory(), text, error_body(text, "ResponseTooLarge"))

    def resume_reading(self) -> None:
        """Read invocations from the engine again. Call when ``Api`` or ``Proxy`` can take another invocation."""
        if not self.watching:
            self.watch_engine()
            self.from_engine(READ)

    def memory(self) -> int:
        return self.bootstrap.memory() if self.bootstrap else 0

    # --- called by the loop ---

    def watch_engine(self) -> None:
        self.watching = True
        self.loop.watch(self.wire.socket, READ, self.from_engine)

    def from_engine(self, events: int) -> None:
        kind = self.wire.peek()
        if kind == INVOKE:
            # Unread until a client requests it: if bootstrap exits before, the engine detects that the invocation has
            # not run.
            if self.front.can_take_request():
                invocation = Invocation(self.wire.read()[1])
                invocation.deadline = int((time.time() + self.setup["timeout"]) * 1000)
                self.front.invoke(invocation)
            else:
                self.watching = False
                self.loop.unwatch(self.wire.socket)
        elif kind == STOP:
            self.wire.read()
            self.stopping = True
            assert self.bootstrap is not None  # as frames are read only after its start
            self.bootstrap.signal(signal.SIGTERM)
        elif kind == NOTICE:
            self.notify(self.wire.read()[1])
        elif kind is not None:
            raise EngineClosed

    def notify(self, body: bytes) -> None:
        """Send SIGTERM to bootstrap and its descendants if its only request must end.

        If bootstrap may serve other requests, too, the signal would end them, so none is sent.
        """
        if body[4] in (CANCELLED, TIMEOUT) and self.setup.get("concurrency", 1) == 1:
            assert self.bootstrap is not None  # as frames are read only after its start
            self.bootstrap.signal(signal.SIGTERM)

    def bootstrap_ended(self, events: int) -> None:
        if self.stopping:
            os._exit(0)
        assert self.bootstrap is not None  # as its descriptor is watched
        end = os.waitid(os.P_PID, self.bootstrap.pid, os.WEXITED | os.WNOWAIT)
        if not self.is_ready and end and end.si_code == os.CLD_EXITED and (advice := advice_on(self.bootstrap.path)):
            text = f"{PREFIX[INIT_FAILED]}the process exited with status {end.si_status} before it answered: {advice}"
            self.ready(INIT_FAILED, text, error_body(text, "INIT_FAILED"))
        self.bootstrap.exit_like_bootstrap()

    def end(self, status: int) -> "NoReturn":
        """Kill bootstrap and all its descendants, and exit with this status."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.bootstrap is not None:
            self.bootstrap.signal(signal.SIGKILL)
        os._exit(status)


def environment(setup: "Setup") -> "dict[str, str]":
    """Return the environment for bootstrap: that of this process, with the paths of code and layers added.

    First in PATH is the folder with ``python3``, which runs this interpreter, unless the function sets PATH.
    """
    variables = {**os.environ, "RUNTIME_PYTHON": sys.executable}
    if "PATH" not in setup["user_data"]:
        variables["PATH"] = f"{os.path.dirname(os.path.abspath(__file__))}/bin:{variables['PATH']}"
    variables["PYTHONPATH"] = ":".join(filter(None, (variables.get("PYTHONPATH"), setup["code"])))
    for layer in setup.get("layers", []):
        for name, folders in (
            ("PATH", ("bin",)),
            ("LD_LIBRARY_PATH", ("lib",)),
            ("PYTHONPATH", ("python", "")),
            ("NODE_PATH", ("nodejs/node_modules", "node_modules")),
        ):
            present = [os.path.join(layer, folder) for folder in folders if os.path.isdir(os.path.join(layer, folder))]
            existing = [variables[name]] if variables.get(name) else []
            if present:
                variables[name] = ":".join(existing + present)
    return variables


def raise_engine_closed(number: int, frame: "FrameType | None") -> None:
    raise EngineClosed


def main(family: str, fd: int) -> None:
    wire = Wire(fd)
    bridge = None
    try:
        # SIGTERM instead of SIGKILL, because descendants of bootstrap must be killed, too. The socket alone does not
        # suffice: it is not always watched.
        signal.signal(signal.SIGTERM, raise_engine_closed)
        exit_with_parent(os.getppid(), signal.SIGTERM)
        prctl(CHILD_SUBREAPER, 1)  # descendants whose parent exits stay descendants, which receive signals
        kind, body = wire.read()
        if kind == SETUP:
            bridge = Bridge(wire, family, json.loads(body))
            bridge.run()
    except (EngineClosed, ConnectionError):
        if bridge is not None:
            bridge.end(0)


def run(family: str, fd: int) -> "NoReturn":
    """Serve the engine's socket in a process that a template has forked, then exit. Never returns."""
    try:
        main(family, fd)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
