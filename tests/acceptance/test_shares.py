"""Two projects in a real engine: one fills the backlog, the slots, the synchronous calls and the logs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.engine_process import BASE, ECHO, HELD, PROJECT, EngineProcess, Reply, begun, held_event, urn_of

SETTINGS = {
    "FUNCTIOND_EXECUTOR__SLOTS": "6",
    "FUNCTIOND_QUEUE__ROWS": "40",
    "FUNCTIOND_QUEUE__SYNC_ROWS": "8",
    "FUNCTIOND_STORAGE__LOGS_SIZE": "60000",
}
LOUD = "def handler(event, context):\n    for _ in range(60):\n        print('x' * 100)\n"


class SharedEngine(EngineProcess):
    """Engine whose client works in one project after another."""

    project = "greedy"

    def ask(self, method: str, path: str, *arguments: Any, **options: Any) -> Reply:
        return super().ask(method, path.replace(PROJECT, self.project), *arguments, **options)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SharedEngine]:
    engine = SharedEngine(tmp_path / "data", **SETTINGS)
    try:
        engine.start()
        engine.project = "modest"
        engine.create("quick", ECHO)
        engine.create("loud", LOUD)
        engine.project = "greedy"
        for number in range(4):
            engine.create(f"held{number}", HELD)
        engine.create("loud", LOUD)
        yield engine
    finally:
        engine.close()


def test_a_project_that_fills_backlog_and_slots_delays_no_other(engine: SharedEngine, tmp_path: Path) -> None:
    event = held_event(tmp_path)
    replies = [engine.send(f"held{number % 4}", event) for number in range(41)]
    begun(tmp_path, 3)  # one of the asynchronous slots is for the other project

    assert [reply.status for reply in replies] == [202] * 20 + [429] * 21
    assert "project greedy has reached its limit of 20 invocations" in replies[-1].json["error_msg"]
    engine.project = "modest"
    for _ in range(2):
        assert engine.record("quick", engine.accepted("quick"), wait=60)["status"] == "SUCCESS"


def test_synchronous_calls_of_a_project_keep_no_other_out(engine: SharedEngine, tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        path = f"{BASE}/{urn_of('held0')}/invocations".replace(PROJECT, engine.project)
        event = held_event(tmp_path)
        calls = [threads.submit(engine.ask, "POST", path, event) for _ in range(8)]
        begun(tmp_path, 4)
        refused = engine.ask("POST", path, event)
        engine.project = "modest"
        call = engine.ask("POST", f"{BASE}/{urn_of('quick')}/invocations", {"a": 1})
        later = engine.record("quick", engine.accepted("quick"), wait=60)
        (tmp_path / "gate").touch()
        statuses = sorted(call.result().status for call in calls)

    assert (refused.status, "project greedy" in refused.json["error_msg"]) == (429, True)
    assert (call.status, later["status"], statuses) == (200, "SUCCESS", [200] * 4 + [429] * 4)


def test_logs_of_a_project_evict_its_own(engine: SharedEngine) -> None:
    engine.project = "modest"
    first = engine.accepted("loud")
    engine.record("loud", first, wait=60)
    engine.project = "greedy"
    for _ in range(15):
        engine.record("loud", engine.accepted("loud"), wait=60)

    engine.project = "modest"
    log = engine.ask("GET", f"{BASE}/{urn_of('loud')}/async-invocations/{first}/logs").body
    assert len(log.splitlines()) == 60
