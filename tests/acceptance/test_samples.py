"""Samples by minute of a running engine: charts live through its end, and an idle engine writes and does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.machine import wakeups
from tests.acceptance import wrong_clock
from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import EngineProcess, rows

pytestmark = pytest.mark.long

STORED = "SELECT count(*) FROM plugin_row WHERE plugin = 'functiond.samples'"


class ClockedEngine(EngineProcess):
    """Engine whose clock tests set."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self._ahead = data.parent / "ahead"
        self.set_clock(0)
        self.program = [wrong_clock.__file__, str(self._ahead)]

    def set_clock(self, ahead: float) -> None:
        self._ahead.write_text(str(ahead))

    def run(self, count: int) -> None:
        ids = [self.accepted("hello") for _ in range(count)]
        assert [self.record("hello", one, wait=30)["status"] for one in ids] == ["SUCCESS"] * count


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ClockedEngine]:
    engine = ClockedEngine(tmp_path / "data")
    try:
        engine.start()
        engine.create("hello", "def handler(event, context):\n    return event\n")
        yield engine
    finally:
        engine.close()


def test_charts_live_through_a_kill_and_a_stop(engine: ClockedEngine) -> None:
    engine.run(3)
    engine.set_clock(60)
    engine.run(2)
    assert rows(engine.data, STORED) == [(1,)]
    engine.kill()
    engine.start()

    assert "3 asynchronous requests" in visit(engine, "/console/").text
    assert "3 asynchronous invocations succeeded" in visit(engine, "/console/?range=24h").text

    engine.run(1)
    engine.stop()
    engine.start()

    assert "4 asynchronous requests" in visit(engine, "/console/?range=1h").text


def test_an_idle_engine_writes_nothing_and_sleeps(engine: ClockedEngine) -> None:
    engine.run(3)
    engine.set_clock(180)
    time.sleep(3)
    before = wakeups(engine.pid)
    time.sleep(3)

    assert wakeups(engine.pid) - before <= 6  # among them the check for steps of the clock, each second here
    assert rows(engine.data, STORED) == [(0,)]
