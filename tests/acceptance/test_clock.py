"""Clocks that are far ahead, in real engines: nothing expires until the clock is accepted, and delayed work wakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.browsing import visit
from tests.acceptance.engine_process import ECHO, PROJECT, ClockedEngine, rows, until
from tests.support.cli import functiond_here

pytestmark = pytest.mark.long

DAY = 86_400
CLOCK = f"/v2/{PROJECT}/fgs/clock"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ClockedEngine]:
    slots = {"FUNCTIOND_EXECUTOR__SLOTS": "2", "FUNCTIOND_EXECUTOR__SYNC_SLOTS": "0"}
    with closing(ClockedEngine(tmp_path / "data", **slots)) as engine:
        engine.start()
        yield engine


@pytest.mark.parametrize("started", [True, False], ids=["a start", "a step"])
def test_a_clock_a_year_ahead_discards_nothing_until_it_is_accepted(engine: ClockedEngine, started: bool) -> None:
    engine.create("echo", ECHO)
    engine.create("aged", ECHO)
    engine.configure("aged", max_async_event_age_in_seconds=3600)
    old = engine.accepted("echo", Idempotency_Key="once")
    until(lambda: engine.record("echo", old)["status"] == "SUCCESS")
    waiting = engine.accepted("aged", X_Functiond_Delay="3000")
    if started:
        engine.stop()
    engine.set_clock(365 * DAY + 60)
    if started:
        engine.start()
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

    assert "365 days after the last trusted time" in " ".join(functiond_here("clock", url=engine.url).stdout.split())
    assert "trusts its clock" in functiond_here("clock", "accept", url=engine.url).stdout
    until(lambda: engine.record("aged", waiting)["status"] == "DISCARD")
    until(lambda: rows(engine.data, "SELECT count(*) FROM invocation") == [(2,)])  # the old one is pruned
    assert engine.ask("GET", CLOCK).json["trusted"] is True


def test_the_overview_lets_a_clock_in_doubt_be_accepted(engine: ClockedEngine) -> None:
    engine.stop()
    engine.set_clock(400 * DAY)
    engine.start()

    page = visit(engine, "/console/")
    assert "The clock is in doubt It is not trusted: 400 days ahead" in page.text
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = engine.ask("POST", "/console/clock/accept", f"form_token={page.form_token}".encode(), headers=headers)

    assert (reply.status, reply.headers["location"]) == (303, "/console/")
    assert "The clock is in doubt" not in visit(engine, "/console/").text
