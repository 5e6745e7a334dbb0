"""Clocks that are far ahead, in real engines: nothing expires until the clock is accepted, and delayed work wakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.acceptance import wrong_clock
from tests.acceptance.engine_process import PROJECT, EngineProcess, rows
from tests.support.cli import functiond_here

pytestmark = pytest.mark.long

ECHO = "def handler(event, context):\n    return event\n"
DAY = 86_400
CLOCK = f"/v2/{PROJECT}/fgs/clock"


class Skewed(EngineProcess):
    """Engine whose clock can be set."""

    def __init__(self, folder: Path) -> None:
        self._ahead = folder / "ahead"
        self.set(0)
        super().__init__(folder / "data", FUNCTIOND_EXECUTOR__SLOTS="2", FUNCTIOND_EXECUTOR__SYNC_SLOTS="0")
        self.program = [wrong_clock.__file__, str(self._ahead)]

    def set(self, days: float) -> None:
        self._ahead.with_suffix(".new").write_text(str(days * DAY))
        self._ahead.with_suffix(".new").rename(self._ahead)

    def restart(self, days: float) -> None:
        self.stop()
        self.set(days)
        self.start()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Skewed]:
    engine = Skewed(tmp_path)
    try:
        engine.start()
        yield engine
    finally:
        engine.close()


def until(true: Callable[[], bool]) -> None:
    deadline = monotonic() + 60
    while not true():
        assert monotonic() < deadline, "not within a minute"
        sleep(0.02)


@pytest.mark.parametrize("started", [True, False], ids=["a start", "a step"])
def test_a_clock_a_year_ahead_discards_nothing_until_it_is_accepted(engine: Skewed, started: bool) -> None:
    engine.create("echo", ECHO)
    engine.create("aged", ECHO)
    engine.configure("aged", max_async_event_age_in_seconds=3600)
    old = engine.accepted("echo", Idempotency_Key="once")
    until(lambda: engine.record("echo", old)["status"] == "SUCCESS")
    waiting = engine.accepted("aged", X_Functiond_Delay="3000")
    (engine.restart if started else engine.set)(365)
    again = engine.accepted("echo", Idempotency_Key="once")
    new = engine.accepted("echo")
    until(lambda: engine.record("echo", new)["status"] == "SUCCESS")
    until(lambda: started or '"the clock was set"' in "".join(engine.log))
    shown = engine.ask("GET", CLOCK).json

    assert again == old
    assert (shown["trusted"], shown["ahead"] // DAY) == (False, 365)
    assert "365 days ahead" in engine.ask("GET", "/readyz").json["clock"]
    assert b"functiond_clock_trusted 0" in engine.ask("GET", "/metrics").body
    assert any("functiond clock accept" in line for line in engine.log)
    assert engine.record("aged", waiting)["status"] == "WAIT"
    assert engine.record("echo", old)["status"] == "SUCCESS"

    url = f"http://127.0.0.1:{engine.port}"
    assert "365 days after the last trusted time" in " ".join(functiond_here("clock", url=url).stdout.split())
    assert "trusts its clock" in functiond_here("clock", "accept", url=url).stdout
    until(lambda: engine.record("aged", waiting)["status"] == "DISCARD")
    until(lambda: rows(engine.data, "SELECT count(*) FROM invocation") == [(2,)])  # the old one is pruned
    assert engine.ask("GET", CLOCK).json["trusted"] is True


def test_a_step_that_is_undone_discards_nothing(engine: Skewed) -> None:
    engine.create("aged", ECHO)
    engine.configure("aged", max_async_event_age_in_seconds=3600)
    waiting = engine.accepted("aged", X_Functiond_Delay="3000")
    engine.set(365)
    until(lambda: engine.ask("GET", CLOCK).json["trusted"] is False)
    engine.set(0)
    until(lambda: engine.ask("GET", CLOCK).json["trusted"] is True)

    assert engine.record("aged", waiting)["status"] == "WAIT"
    assert any("the clock was corrected" in line for line in engine.log)


def test_work_of_a_start_years_ahead_is_neither_lost_nor_kept_for_ever(engine: Skewed) -> None:
    engine.create("echo", ECHO)
    engine.accepted("echo")
    engine.restart(365 * 70)
    far = engine.accepted("echo")
    until(lambda: engine.record("echo", far)["status"] == "SUCCESS")
    engine.restart(0)
    after = engine.accepted("echo")
    until(lambda: engine.record("echo", after)["status"] == "SUCCESS")

    keys = rows(engine.data, "SELECT key FROM invocation ORDER BY key")
    assert len(keys) == 3
    until(lambda: rows(engine.data, "SELECT count(*) FROM invocation WHERE ended > 3e9") == [(0,)])
    engine.restart(8)
    until(lambda: rows(engine.data, "SELECT count(*) FROM invocation") == [(0,)])


def test_delayed_work_starts_soon_after_a_step_ahead(engine: Skewed) -> None:
    engine.create("echo", ECHO)
    delayed = engine.accepted("echo", X_Functiond_Delay="86400")
    engine.set(2)

    until(lambda: engine.record("echo", delayed)["status"] == "SUCCESS")
