"""Work of one project that fills what all share: memory for bodies, deliveries under way, and unpacking of packages.

Beside each, a client of another project does the same kind of work, alone and then beside it.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import socket
import threading
import time
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from bench.harness import Options, Round, scratch
from bench.lagging import Lag
from bench.load import percentiles
from bench.server import MAX_WAIT, NOOP, PROJECT, Engine, ServerFailed, engine

OTHER = "other"  #: project of the client that is measured
SOURCE = "127.0.0.2"  #: address of this client
BODIES, SENT, DECLARED = 64, (5 << 20, 50_000), 6 << 20  #: half-sent bodies of each size, and bytes that they declare
RECEIVERS, OUTCOMES = 12, 32  #: receivers that hang, and outcomes for each
FILES = 15_000  #: empty files of a package
EVENT = json.dumps("x" * 100_000).encode()
SETTLED = 0.5  #: seconds that the attack gets before the measurement
Ask = Callable[[], object]


def post(server: Engine, path: str, pieces: list[bytes], size: int, source: str = "") -> socket.socket:
    """Send the pieces of a body in packets of their own."""
    connection = socket.create_connection(("127.0.0.1", server.port), MAX_WAIT, (source, 0) if source else None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
    for piece in pieces:
        connection.sendall(piece)
        time.sleep(0.001)
    return connection


def send_event(server: Engine, opened: ExitStack) -> Ask:
    path = server.deploy("noop", NOOP, project=OTHER) + "/invocations-async"

    def ask() -> None:
        with post(server, path, [EVENT[:50_000], EVENT[50_000:]], len(EVENT), SOURCE) as connection:
            if not (answer := connection.recv(1 << 16)).startswith(b"HTTP/1.1 202 "):
                raise ServerFailed(f"the event of another project was refused: {answer[:300]!r}")

    return ask


@contextmanager
def half_sent_bodies(server: Engine, options: Options) -> Iterator[None]:
    path = server.deploy("filled", NOOP) + "/invocations"
    with ExitStack() as connections:
        for size in [size for size in SENT for _ in range(options.scaled(BODIES))]:
            with suppress(OSError):  # refused while it was sent
                connections.enter_context(post(server, path, [b"x" * size], DECLARED))
        yield


def send_outcome(server: Engine, opened: ExitStack) -> Ask:
    receiver = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
    receiver.settimeout(MAX_WAIT)
    path = _deliver_to(server, "noop", receiver, OTHER)

    def ask() -> None:
        server.call("POST", f"{path}/invocations-async", {})
        connection, _ = receiver.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    return ask


@contextmanager
def hanging_receivers(server: Engine, options: Options) -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as hanging:
        for number in range(RECEIVERS):
            path = _deliver_to(server, f"hangs{number}", hanging, PROJECT)
            for _ in range(options.scaled(OUTCOMES)):
                server.call("POST", f"{path}/invocations-async", {})
        yield


def _deliver_to(server: Engine, name: str, receiver: socket.socket, project: str) -> str:
    """Create a function whose outcomes go to the receiver by WEBHOOK. Return its path in the API."""
    path = server.deploy(name, NOOP, instances=1, project=project)
    url = f"http://127.0.0.1:{receiver.getsockname()[1]}/{name}"
    on_success = {"destination": "WEBHOOK", "param": json.dumps({"url": url})}
    server.call("PUT", f"{path}/async-invoke-config", {"destination_config": {"on_success": on_success}})
    return path


def deploy(server: Engine, opened: ExitStack) -> Ask:
    path, numbers = server.deploy("small", NOOP, project=OTHER), itertools.count()

    def ask() -> None:
        file = base64.b64encode(f"{NOOP}# {next(numbers)}\n".encode()).decode()
        server.call("PUT", f"{path}/code", {"code_type": "inline", "func_code": {"file": file}})

    return ask


@contextmanager
def wide_deployments(server: Engine, options: Options) -> Iterator[None]:
    path, over, packed = server.deploy("wide", NOOP), threading.Event(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(options.scaled(FILES)):
            archive.writestr(f"f{number}", "")

    def repeat() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            with zipfile.ZipFile(packed, "a") as archive:  # another package each time
                archive.writestr(f"more{number}", "")
            code = {"code_type": "zip", "func_code": {"file": base64.b64encode(packed.getvalue()).decode()}}
            server.call("PUT", f"{path}/code", code)

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


UNPACKED = "wide deployments"  #: every deployment waits for turns, so that none is as fast as alone
Prepare = Callable[[Engine, ExitStack], Ask]
FILLING: dict[str, tuple[Prepare, Callable[[Engine, Options], AbstractContextManager[None]]]] = {
    "half-sent bodies": (send_event, half_sent_bodies),
    "hanging receivers": (send_outcome, hanging_receivers),
    UNPACKED: (deploy, wide_deployments),
}


def filled(name: str, options: Options) -> Round:
    """Measure the loop, and another project's work alone and beside the attack."""
    prepare, attack = FILLING[name]
    with (
        ExitStack() as opened,
        scratch(options) as directory,
        engine(directory / "data", lag=str(directory / "lag")) as server,
    ):
        lag, ask = Lag(directory / "lag"), prepare(server, opened)
        ask()  # starts what it needs
        alone = _p99(ask, options.seconds)
        with attack(server, options):
            time.sleep(SETTLED)
            lag.reset()
            beside = _p99(ask, options.seconds)
            held = 1000 * lag.read()[0]
    return {f"lag, {name}": held, f"p99, {name}": beside, f"beside, {name}": beside / alone}


def _p99(ask: Ask, seconds: float) -> float:
    """Return the latency in milliseconds, of calls one after another."""
    taken, end = array("d"), time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return percentiles(taken).p99
