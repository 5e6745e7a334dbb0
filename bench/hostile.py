"""Hostile connections: memory of the engine, and service of an ordinary client beside them.

Each kind of connection has an engine of its own, so that one peak of memory does not hide another. The ordinary client
uses a new connection for each request, so that it waits for its turn as any other new client does.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from bench.attack import CLIENTS, OPENING, Attack, Report, anonymous_tls
from bench.filling import FILLING, UNPACKED, filled
from bench.harness import Figure, Options, Progress, Round, Scenario, scratch
from bench.lagging import Lag
from bench.load import Percentiles, percentiles
from bench.machine import memory_mb
from bench.nasty import INPUTS, send
from bench.server import NOOP, Engine, ServerFailed, engine
from bench.wide import WIDE

CONNECTIONS = 200
FLOODS = 4
QUIET = 0.2  #: seconds before and after an input
INTERVAL = 0.01  #: seconds between two requests of the ordinary client
PAUSE = 0.1  #: seconds between two wide inputs
PATIENCE = 10.0  #: seconds after which the ordinary client counts a request as lost
ANSWER = 6_000_000  #: bytes, more than the system buffers for a connection
LARGE = f"def handler(event, context):\n    return 'x' * {ANSWER}\n"
REQUEST = (
    "POST {path}/invocations HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    "Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
)


class Service(Struct, frozen=True, kw_only=True):
    """Service of the ordinary client."""

    answered: float  #: percent of its requests
    latency: Percentiles  #: of lost requests, too


def rounds(options: Options, progress: Progress) -> Generator[Round, None, None]:
    while True:
        figures: Round = {}
        connections = options.scaled(CONNECTIONS)
        for kind in CLIENTS:
            progress(f"hostile: {connections} connections, {kind}")
            memory, service, report = attack(kind, connections, options)
            figures |= {
                f"memory {kind}": memory,
                f"answered {kind}": service.answered,
                f"p99 {kind}": service.latency.p99,
            }
            if kind == "refused uploads":
                figures["refusals read"] = 100 * report.refused / max(1, report.refused + report.lost)
        progress(f"hostile: {FLOODS} pipelines")
        _, service, _ = attack("read pipelines", FLOODS, options)
        figures |= {"p50 beside 4": service.latency.p50, "p99 beside 4": service.latency.p99}
        for name in INPUTS:
            progress(f"hostile: {name}")
            figures[f"lag, {name}"] = 1000 * worst_lag(name, options)
        for name in WIDE:
            progress(f"hostile: {name}")
            figures |= beside(name, options)
        for name in FILLING:
            progress(f"hostile: {name}")
            figures |= filled(name, options)
        yield figures


def attack(kind: str, connections: int, options: Options) -> tuple[float, Service, Report]:
    """Return the engine's peak of memory in MB, the service beside the attack, and the attack's report."""
    tls = CLIENTS[kind].tls
    with (
        scratch(options) as directory,
        engine(directory / "data", profile=options.profile, **(_certificate(directory) if tls else {})) as server,
    ):
        path, large = server.deploy("noop", NOOP), server.deploy("large", LARGE, instances=4)
        _serve(server, path, 0.1, tls=tls)  # starts an instance
        plan = Attack(kind=kind, port=server.port, path=large, connections=connections, seconds=options.seconds)
        command = [sys.executable, "-m", "bench.attack"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(msgspec.json.encode(plan))
            process.stdin.close()
            if not process.stdout.readline():
                raise ServerFailed(f"the connections of {kind} did not open in {OPENING:g} s")
            service = _serve(server, path, options.seconds, tls=tls)
            report = msgspec.json.decode(process.stdout.read(), type=Report)
        return memory_mb(server.pid, "VmHWM"), service, report


def worst_lag(name: str, options: Options) -> float:
    """Return the worst lag of the event loop in seconds while the engine handles an input."""
    with scratch(options) as directory, engine(directory / "data", lag=str(directory / "lag")) as server:
        lag = Lag(directory / "lag")
        given = INPUTS[name](server, min(1.0, options.scale))
        time.sleep(QUIET)
        lag.reset()
        send(server, given)
        time.sleep(QUIET)
        return lag.read()[0]


def beside(name: str, options: Options) -> Round:
    """Measure the loop, and the ordinary client alone and beside a client that sends a wide input again and again."""
    with scratch(options) as directory, engine(directory / "data", lag=str(directory / "lag")) as server:
        path, lag, over = server.deploy("noop", NOOP), Lag(directory / "lag"), threading.Event()
        given = WIDE[name](server, min(1.0, options.scale))
        _serve(server, path, 0.1, tls=False)  # starts an instance
        alone = _serve(server, path, options.seconds, tls=False).latency.p99

        def repeat() -> None:
            while not over.wait(PAUSE):
                send(server, given)

        thread = threading.Thread(target=repeat)
        lag.reset()
        thread.start()
        latency = _serve(server, path, options.seconds, tls=False).latency
        over.set()
        thread.join()
        held = 1000 * lag.read()[0]
    return {f"lag, {name}": held, f"p99, {name}": latency.p99, f"beside, {name}": latency.p99 / alone}


def _serve(server: Engine, path: str, seconds: float, *, tls: bool) -> Service:
    """Invoke the function on a new connection for each request, and return how these requests were served."""
    request = REQUEST.format(path=path, port=server.port).encode()
    context = anonymous_tls() if tls else None
    taken, answered, end = array("d"), 0, time.perf_counter() + seconds
    while not taken or time.perf_counter() < end:
        began = time.perf_counter()
        answered += _ask(server.port, request, context).startswith(b"HTTP/1.1 200 ")
        taken.append(time.perf_counter() - began)
        time.sleep(INTERVAL)
    return Service(answered=100 * answered / len(taken), latency=percentiles(taken))


def _ask(port: int, request: bytes, tls: ssl.SSLContext | None) -> bytes:
    """Return the answer, or as much of it as has arrived."""
    answer = b""
    with suppress(OSError), _connect(port, tls) as connection:
        connection.sendall(request)
        while piece := connection.recv(1 << 16):
            answer += piece
    return answer


def _connect(port: int, tls: ssl.SSLContext | None) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    return tls.wrap_socket(connection) if tls else connection


def _certificate(directory: Path) -> dict[str, str]:
    """Write a certificate, and return the settings that name it."""
    from tests.support.certificates import write_certificate

    write_certificate(directory)
    files = {"CERTIFICATE": "cert.pem", "KEY": "key.pem"}
    return {f"FUNCTIOND_HTTP__TLS_{name}": str(directory / file) for name, file in files.items()}


SCENARIO = Scenario(
    name="hostile",
    title=f"{CONNECTIONS} hostile connections of each kind, and an ordinary client beside them",
    figures=(
        *(Figure(name=f"memory {kind}", unit="MB resident, peak", at_most=100) for kind in CLIENTS),
        *(Figure(name=f"answered {kind}", unit="% of ordinary requests", at_least=100) for kind in CLIENTS),
        *(Figure(name=f"p99 {kind}", unit="ms, ordinary client") for kind in CLIENTS),
        Figure(name="refusals read", unit="% of refused uploads", at_least=100),
        Figure(name="p50 beside 4", unit="ms, beside 4 pipelines"),
        Figure(name="p99 beside 4", unit="ms, beside 4 pipelines", at_most=50),
        *(
            Figure(name=f"lag, {name}", unit="ms, worst lag of the event loop", at_most=50)
            for name in (*INPUTS, *WIDE, *FILLING)
        ),
        *(Figure(name=f"p99, {name}", unit="ms, another project's") for name in (*WIDE, *FILLING)),
        *(
            Figure(name=f"beside, {name}", unit="times its p99 alone", at_most=None if name == UNPACKED else 2)
            for name in (*WIDE, *FILLING)
        ),
    ),
    rounds=rounds,
    note="the ordinary client opens a connection for each request; the hostile clients share the machine",
)
