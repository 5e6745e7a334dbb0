"""TIMER triggers of an engine that is killed, and of a function that is paused."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, EngineProcess, engine_on, rows, until, urn_of

pytestmark = pytest.mark.long

EVERY_SECOND = {"name": "t", "schedule_type": "Cron", "schedule": "@every 1s"}


def fired(engine: EngineProcess, amount: int) -> list[float]:
    """Wait for ``amount`` requests and return the due times of all."""
    payloads = until(
        lambda: len(bodies := rows(engine.data, "SELECT body FROM payload ORDER BY key")) >= amount and bodies
    )
    return [datetime.fromisoformat(json.loads(body)["time"]).timestamp() for [body] in payloads]


def test_a_killed_engine_fires_once_for_all_that_it_missed_and_nothing_twice(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        engine.trigger("hello", "TIMER", EVERY_SECOND)
        fired(engine, 1)
        engine.kill()
        before = fired(engine, 1)
        time.sleep(2.2)  # at least two due times pass
        engine.start()
        after = fired(engine, len(before) + 2)

    assert after[: len(before)] == before
    assert after == sorted(set(after))
    assert after[len(before)] - before[-1] >= 2  # one request for all missed times, with the last of them


def test_a_timer_of_a_paused_function_goes_on_and_its_requests_run_after_the_pause(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        function = f"{BASE}/{urn_of('hello')}"
        assert engine.ask("POST", f"{function}/pause").status == 200
        engine.trigger("hello", "TIMER", EVERY_SECOND)
        due = fired(engine, 2)[:2]
        listed = engine.ask("GET", f"{function}/async-invocations").json["invocations"]
        assert engine.ask("POST", f"{function}/resume").status == 200
        ended = [engine.record("hello", invocation["request_id"], wait=60) for invocation in listed]

    assert len(listed) >= 2
    assert {(invocation["status"], invocation.get("paused")) for invocation in listed} == {("WAIT", True)}
    assert {(record["source"], record["status"]) for record in ended} == {("TIMER", "SUCCESS")}
    results = sorted(datetime.fromisoformat(json.loads(record["result"])["time"]).timestamp() for record in ended)
    assert results[:2] == due
