"""Samples by minute of a running engine: charts live through its end, and an idle engine writes and does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench.machine import wakeups
from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import ClockedEngine, EngineProcess, rows

pytestmark = pytest.mark.long

STORED = "SELECT count(*) FROM plugin_row WHERE plugin = 'functiond.samples'"


def run(engine: EngineProcess, count: int) -> None:
    ids = [engine.accepted("hello") for _ in range(count)]
    assert [engine.record("hello", request_id, wait=30)["status"] for request_id in ids] == ["SUCCESS"] * count


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ClockedEngine]:
    with closing(ClockedEngine(tmp_path / "data")) as engine:
        engine.start()
        engine.create("hello", "def handler(event, context):\n    return event\n")
        yield engine


def test_charts_live_through_a_kill_and_a_stop(engine: ClockedEngine) -> None:
    run(engine, 3)
    engine.set_clock(60)
    run(engine, 2)
    assert rows(engine.data, STORED) == [(1,)]
    engine.kill()
    engine.start()

    assert "3 asynchronous requests" in visit(engine, "/console/").text
    assert "3 asynchronous invocations succeeded" in visit(engine, "/console/?range=24h").text

    run(engine, 1)
    engine.stop()
    engine.start()

    assert "4 asynchronous requests" in visit(engine, "/console/?range=1h").text


def test_an_idle_engine_writes_nothing_and_sleeps(engine: ClockedEngine) -> None:
    run(engine, 3)
    engine.set_clock(180)
    time.sleep(3)
    before = wakeups(engine.pid)
    time.sleep(3)

    assert wakeups(engine.pid) - before <= 6  # among them the check for steps of the clock, each second here
    assert rows(engine.data, STORED) == [(0,)]
