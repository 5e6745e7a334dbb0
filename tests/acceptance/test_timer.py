"""TIMER triggers of an engine that is killed, or whose clock is wrong."""

from __future__ import annotations

import itertools
import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.engine_process import BASE, PROJECT, EngineProcess, engine_on, rows, urn_of

pytestmark = pytest.mark.long

HOUR = 3600
#: Engine whose clock is ahead by the number of seconds in a file.
AHEAD = """
import runpy, sys, time
from pathlib import Path

right, file = time.time, Path({file!r})
time.time = lambda: right() + float(file.read_text())
runpy.run_module("engine", run_name="__main__")
"""
EVERY_SECOND = {"name": "t", "schedule_type": "Cron", "schedule": "@every 1s"}


def fired(engine: EngineProcess, amount: int) -> list[float]:
    """Wait for ``amount`` requests and return the due times of all."""
    while True:
        found = [json.loads(body)["time"] for [body] in rows(engine.data, "SELECT body FROM payload ORDER BY key")]
        if len(found) >= amount:
            return [datetime.fromisoformat(moment).timestamp() for moment in found]
        time.sleep(0.02)


def last_is_ahead(engine: EngineProcess, first: float, *, ahead: bool = True) -> None:
    """Wait until the latest due time is of a clock that is an hour ahead, or with ``ahead=False`` is not."""
    while (fired(engine, 1)[-1] > first + HOUR / 2) is not ahead:
        time.sleep(0.02)


def test_a_killed_engine_fires_once_for_all_that_it_missed_and_nothing_twice(tmp_path: Path) -> None:
    with engine_on(tmp_path / "data") as engine:
        engine.create("hello", "def handler(event, context):\n    return event\n")
        body = {"trigger_type_code": "TIMER", "event_data": EVERY_SECOND}
        assert engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}", body).status == 201
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
        body = {"trigger_type_code": "TIMER", "event_data": EVERY_SECOND}
        assert engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}", body).status == 201
        due = fired(engine, 2)[:2]
        listed = engine.ask("GET", f"{function}/async-invocations").json["invocations"]
        assert engine.ask("POST", f"{function}/resume").status == 200
        ended = [engine.record("hello", one["request_id"], wait=60) for one in listed]

    assert len(listed) >= 2
    assert {(one["status"], one.get("paused")) for one in listed} == {("WAIT", True)}
    assert {(one["source"], one["status"]) for one in ended} == {("TIMER", "SUCCESS")}
    results = sorted(datetime.fromisoformat(json.loads(one["result"])["time"]).timestamp() for one in ended)
    assert results[:2] == due


def test_an_engine_whose_clock_was_an_hour_ahead_goes_on_firing_with_and_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "ahead"

    def set_clock(ahead: int) -> None:
        file.with_suffix(".new").write_text(str(ahead))
        file.with_suffix(".new").rename(file)

    set_clock(0)
    engine = EngineProcess(tmp_path / "data")
    engine.program = ["-c", AHEAD.format(file=str(file))]
    try:
        engine.start()
        engine.create("hello", "def handler(event, context):\n    return event\n")
        body = {"trigger_type_code": "TIMER", "event_data": EVERY_SECOND}
        assert engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('hello')}", body).status == 201
        first = fired(engine, 1)[0]
        for restart in (False, True):
            set_clock(HOUR)
            last_is_ahead(engine, first)
            if restart:
                engine.kill()
            set_clock(0)
            if restart:
                engine.start()
            last_is_ahead(engine, first, ahead=False)
        due = fired(engine, len(fired(engine, 1)) + 2)
    finally:
        engine.close()

    assert len(due) == len(set(due))
    ahead = [moment > first + HOUR / 2 for moment in due]
    assert [group for group, _ in itertools.groupby(ahead)] == [False, True, False, True, False]
