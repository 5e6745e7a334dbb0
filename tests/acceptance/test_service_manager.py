"""An engine under a service manager: messages to a real notify socket, as systemd receives them."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread

from engine.app.service_manager import ServiceManager, service_manager, signs_of_life
from tests.acceptance.engine_process import HELD, EngineProcess, begun, held_event, until

pytestmark = pytest.mark.long

#: Plugin whose service holds the loop from the time at which the file ``hold`` exists until ``free`` does.
PLUGIN = """
import time
from pathlib import Path

import anyio

from engine import Plugin

FOLDER = Path(__file__).parent


class Service:
    async def run(self, context, *, task_status):
        task_status.started()
        while not (FOLDER / "hold").exists():
            await anyio.sleep(0.01)
        wait_for_the_network()
        await anyio.sleep_forever()


def wait_for_the_network():
    while not (FOLDER / "free").exists():
        time.sleep(0.01)


plugin = Plugin(kinds=("HOLDER",), serve=lambda settings: Service())
"""
WATCHDOG = 0.5  #: seconds that the manager waits for a sign of life
DEADLINE = 60.0  #: seconds; only a failing test takes so long


class Manager:
    """Socket that receives messages of an engine."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(DEADLINE)

    def next(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def until(self, name: str) -> dict[str, str]:
        """Return the next message with a field ``name``."""
        while name not in (message := self.next()):
            pass
        return message

    def drain(self) -> None:
        """Drop what has arrived."""
        self.socket.settimeout(0)
        try:
            while True:
                self.next()
        except BlockingIOError:
            self.socket.settimeout(DEADLINE)

    def silent(self, seconds: float) -> bool:
        """Return whether no message arrives for so long."""
        self.socket.settimeout(seconds)
        try:
            return not self.next()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(DEADLINE)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.socket.close()


def engine_under(manager: Manager, folder: Path, **settings: str) -> EngineProcess:
    return EngineProcess(folder / "data", NOTIFY_SOCKET=str(manager.path), **settings)


def test_start_reload_and_stop_are_told(manager: Manager, tmp_path: Path) -> None:
    with closing(engine_under(manager, tmp_path)) as engine:
        serving = engine.launch()
        ready = manager.next()
        engine.port = int(ready["STATUS"].rpartition(":")[2])
        assert engine.ask("GET", "/readyz").status == 200  # the listener answers when READY has been sent

        engine.signal(signal.SIGHUP)  # without credentials and TLS, there is nothing to reload
        reload = manager.next(), manager.next()
        assert serving.result(DEADLINE) == engine.port
        engine.create("waits", HELD)
        engine.accepted("waits", held_event(tmp_path))
        begun(tmp_path, 1)
        engine.signal(signal.SIGTERM)
        stopping = manager.next()
        (tmp_path / "gate").touch()

        assert engine.wait() == 0

    assert ready == {"READY": "1", "STATUS": f"serving {engine.url}"}
    assert int(reload[0].pop("MONOTONIC_USEC")) > 0
    assert reload == ({"RELOADING": "1"}, {"READY": "1"})
    assert stopping == {"STOPPING": "1", "STATUS": "1 invocations run, for up to 5 s"}
    assert manager.silent(0.01)


def test_signs_of_life_come_twice_per_interval(manager: Manager, tmp_path: Path) -> None:
    with closing(engine_under(manager, tmp_path, WATCHDOG_USEC=str(int(WATCHDOG * 1e6)))) as engine:
        engine.start()
        manager.until("READY")
        manager.until("WATCHDOG")
        began = time.monotonic()
        manager.drain()
        for _ in range(5):
            assert manager.next() == {"WATCHDOG": "1"}
        # No upper limit: a busy machine may delay them.
        assert time.monotonic() - began > 3.5 * WATCHDOG / 2

        engine.signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{engine.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T")
        manager.drain()
        stopped_is_silent = manager.silent(2 * WATCHDOG)
        engine.signal(signal.SIGCONT)
        assert stopped_is_silent
        assert manager.next() == {"WATCHDOG": "1"}
        assert engine.stop() == 0


def stalls(engine: EngineProcess) -> list[dict[str, Any]]:
    """Return the lines about stalls by the plugin. A slow machine may have others."""
    lines = [json.loads(line) for line in list(engine.log)]
    return [line for line in lines if line["event"] == "event loop stalled" and "wait_for_the_network" in line["stack"]]


def test_a_held_loop_gives_no_sign_of_life_and_answers_no_probe_and_the_log_names_the_code(
    manager: Manager, tmp_path: Path
) -> None:
    (tmp_path / "holder.py").write_text(PLUGIN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    settings = {"FUNCTIOND_PLUGIN": "holder", "PYTHONPATH": path, "WATCHDOG_USEC": str(int(WATCHDOG * 1e6))}
    with closing(engine_under(manager, tmp_path, FUNCTIOND_HEALTH__STALL="0.3", **settings)) as engine:
        engine.start().create("waits", HELD)
        request_id = engine.accepted("waits", held_event(tmp_path))
        begun(tmp_path, 1)
        manager.until("READY")
        (tmp_path / "hold").touch()
        until(lambda: stalls(engine))
        until(lambda: manager.silent(2 * WATCHDOG))
        with pytest.raises(TimeoutError):
            engine.ask("GET", "/healthz", timeout=1.0)
        (tmp_path / "free").touch()

        assert manager.until("WATCHDOG")
        health = engine.ask("GET", "/healthz")
        (tmp_path / "gate").touch()
        assert engine.record("waits", request_id, wait=30)["status"] == "SUCCESS"
        assert engine.stop() == 0

    [line] = stalls(engine)
    assert line["seconds"] >= 0.3
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert "held the event loop" in health.json["loop"]


async def test_stalled_work_gives_no_sign_of_life_and_is_told(manager: Manager) -> None:
    stalls: dict[str, str] = {}
    async with signs_of_life(ServiceManager(str(manager.path), 0.02), lambda: stalls):
        alive = await to_thread.run_sync(manager.next)
        stalls["journal"] = "a commit has taken 31.0 s so far"
        stalled = await to_thread.run_sync(manager.until, "STATUS")
        silent = await to_thread.run_sync(manager.silent, 0.2)
        stalls.clear()
        again = await to_thread.run_sync(manager.next)

    assert (alive, stalled, silent) == (
        {"WATCHDOG": "1"},
        {"STATUS": "journal: a commit has taken 31.0 s so far"},
        True,
    )
    assert again == {"WATCHDOG": "1"}


@pytest.mark.parametrize(
    ("environ", "watchdog"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "relative"}, None),
        ({"NOTIFY_SOCKET": "/run/notify"}, 0),
        ({"NOTIFY_SOCKET": "@abstract", "WATCHDOG_USEC": "3000000"}, 3),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3),
        ({"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, 0),
    ],
)
def test_the_environment_names_the_manager(environ: dict[str, str], watchdog: float | None) -> None:
    named = service_manager(environ)

    assert (named and named.watchdog) == watchdog


def test_an_engine_serves_without_its_manager(tmp_path: Path) -> None:
    with closing(EngineProcess(tmp_path / "data", NOTIFY_SOCKET=str(tmp_path / "gone"))) as engine:
        engine.start()
        assert engine.ask("GET", "/readyz").status == 200
        assert engine.stop() == 0

    assert any('"service manager not told"' in line for line in engine.log)
