"""Engine with few open files: clients beyond the limits are turned away, counted and logged, and others are served."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, until, urn_of

FILES = 256
#: Program that runs the engine with a low limit of open files, as ``ulimit -n`` sets it.
LIMITED = (
    f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES})); "
    "runpy.run_module('engine', run_name='__main__', alter_sys=True)"
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with closing(EngineProcess(tmp_path / "data")) as engine:
        engine.program = ["-c", LIMITED]
        yield engine.start()


def flood(port: int, address: str, count: int, stack: ExitStack) -> list[socket.socket]:
    """Open connections from an address, one after the other."""
    connections = []
    for _ in range(count):
        connection = stack.enter_context(socket.socket())
        connection.bind((address, 0))
        connection.settimeout(60)
        connection.connect(("127.0.0.1", port))
        connections.append(connection)
    return connections


def refusal(connection: socket.socket) -> bytes:
    """Return the first bytes on a connection, nothing if it is closed without any."""
    try:
        return connection.recv(13)
    except ConnectionResetError:
        return b""


def open_files(engine: EngineProcess) -> int:
    return len(list(Path(f"/proc/{engine.pid}/fd").iterdir()))


def test_a_flood_of_one_client_leaves_the_engine_to_others(engine: EngineProcess) -> None:
    with ExitStack() as stack:
        refused = [refusal(connection) for connection in flood(engine.port, "127.0.1.1", 40, stack)[12:]]
        engine.create("hello", "def handler(event, context):\n    return event\n")
        called = engine.ask("POST", f"{BASE}/{urn_of('hello')}/invocations", {"a": 1})
        metrics = engine.ask("GET", "/metrics").body.decode()
    engine.stop()

    assert refused == [b"HTTP/1.1 429 "] * 8 + [b""] * 20
    assert (called.status, called.json) == (200, {"a": 1})
    assert 'functiond_clients_turned_away_total{limit="client_connections"} 28.0' in metrics
    lines = [json.loads(line) for line in engine.log]
    (few,) = [line for line in lines if line["event"] == "few open files allowed"]
    assert (few["limit"], few["connections"]) == (FILES, 50)
    logged = [line for line in lines if line["event"] == "clients turned away"]
    assert (logged[0]["client"], logged[0]["limit"]) == ("127.0.1.1", "client_connections")
    assert len(logged) < 5  # one line in 10 s


def test_functions_start_during_a_flood_of_many_clients(engine: EngineProcess) -> None:
    engine.create("hello", "def handler(event, context):\n    return event\n")
    with ExitStack() as stack:
        request_id = engine.accepted("hello", {"a": 1})
        for number in range(1, 21):
            last = flood(engine.port, f"127.0.1.{number}", 5, stack)[-1]
        assert refusal(last) == b""
        used = open_files(engine)
    until(lambda: open_files(engine) <= used - 50)  # the engine has closed its ends of the connections

    assert used < 3 * FILES // 4
    assert engine.record("hello", request_id, wait=30)["status"] == "SUCCESS"
