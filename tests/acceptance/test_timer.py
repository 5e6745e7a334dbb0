"""TIMER in an engine of its own, which is killed."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

from tests.acceptance.engine_process import PROJECT, EngineProcess, engine_on, rows, urn_of

EVERY_SECOND = {"name": "t", "schedule_type": "Cron", "schedule": "@every 1s"}


def fired(engine: EngineProcess, amount: int) -> list[float]:
    """The due times of all requests, once there are so many."""
    while True:
        found = [json.loads(body)["time"] for [body] in rows(engine.data, "SELECT body FROM payload ORDER BY key")]
        if len(found) >= amount:
            return [datetime.fromisoformat(moment).timestamp() for moment in found]
        time.sleep(0.02)


def test_a_killed_engine_fires_once_for_all_that_it_missed_and_nothing_twice(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        body = {"trigger_type_code": "TIMER", "event_data": EVERY_SECOND}
        assert engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}", body).status == 201
        fired(engine, 1)
        engine.kill()
        before = fired(engine, 1)
        time.sleep(2.2)  # two due times pass, at least
        engine.start()
        after = fired(engine, len(before) + 2)

    assert after[: len(before)] == before
    assert after == sorted(set(after))
    assert after[len(before)] - before[-1] >= 2  # the last of them, for all
