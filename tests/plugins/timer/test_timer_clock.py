"""Wrong clocks on a real journal: no timer stops, and no due time runs twice."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from plugins.timer import plugin
from tests.acceptance.engine_process import rows
from tests.doubles import ManualClock
from tests.support.passing import PassingTime
from tests.support.triggering import House, house, until

BEGIN = datetime.fromisoformat("2026-03-01T00:00:00+00:00").timestamp()
HOUR, YEARS = 3600.0, 10 * 366 * 86_400.0
EVERY_TEN = {"name": "t", "schedule_type": "Cron", "schedule": "@every 10s"}
RULES = ("once", "all", "skip")


@asynccontextmanager
async def timers(folder: Path, time: PassingTime, rule: str) -> AsyncIterator[House]:
    async with house(folder, [plugin], clock=time.clock, plugins__timer__catch_up=rule) as place:
        yield place


def due_times(folder: Path) -> list[float]:
    """Return the accepted due times in order of acceptance, in seconds since the start of the test."""
    events = [json.loads(body) for [body] in rows(folder, "SELECT body FROM payload ORDER BY key")]
    return [datetime.fromisoformat(event["time"]).timestamp() - BEGIN for event in events]


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> PassingTime:
    return PassingTime(BEGIN, monkeypatch)


@pytest.mark.parametrize(
    ("schedule", "leave", "begin"),
    [
        ("@every 30s", 75.0, 75.0),
        ("@every 30s", 102.0, 108.0),
        ("*/30 * * * * *", 102.0, 108.0),
        ("*/30 * * * * *", 0.0, 0.0),
    ],
    ids=["restarted in the error", "restarted after it", "a calendar, restarted after it", "a calendar, not restarted"],
)
@pytest.mark.parametrize("rule", RULES)
async def test_a_clock_an_hour_ahead_for_a_minute_loses_and_doubles_no_due_time(
    tmp_path: Path, time: PassingTime, schedule: str, rule: str, leave: float, begin: float
) -> None:
    time.errors |= {45.0: HOUR, 105.0: 0.0}
    async with timers(tmp_path, time, rule) as place:
        await place.create("TIMER", **{**EVERY_TEN, "schedule": schedule})
        await time.run_until(leave or HOUR + 200)
    if leave:
        time.pass_until(begin)
        async with timers(tmp_path, time, rule):
            await time.run_until(HOUR + 200)

    missed = set() if rule == "all" else {60, 90}  # the setting drops the due times that the jump skipped
    assert sorted(due_times(tmp_path)) == sorted(set(range(30, int(HOUR) + 201, 30)) - missed)


@pytest.mark.parametrize("rule", ["once", "skip"])
async def test_a_clock_ten_years_ahead_for_a_minute_is_forgotten_at_once(
    tmp_path: Path, time: PassingTime, rule: str
) -> None:
    time.errors |= {15.0: YEARS, 75.0: 0.0}
    async with timers(tmp_path, time, rule) as place:
        await place.create("TIMER", **EVERY_TEN)
        await time.run_until(72)
    time.pass_until(78)
    with capture_logs() as logs:
        async with timers(tmp_path, time, rule) as place:
            await time.run_until(200)
            fired = due_times(tmp_path)

    right = [due for due in fired if due < YEARS]
    assert right == [10, *range(80, 201, 10)]
    assert len(fired) - len(right) == (6 if rule == "once" else 5)
    told = [line for line in logs if "set back" in line["event"]]
    assert [(line["log_level"], line["now"]) for line in told] == [("warning", "2026-03-01T00:01:18+00:00")]


async def test_ten_years_that_are_caught_up_end_when_the_clock_is_set_back(tmp_path: Path, time: PassingTime) -> None:
    async with timers(tmp_path, time, "all") as place:
        await place.create("TIMER", **EVERY_TEN)
        await time.run_until(15)
    time.clock.advance(YEARS)
    async with timers(tmp_path, time, "all") as place:
        figures = place.engine.sources.statistics
        await until(lambda: figures().accepted >= 300)
        time.clock.advance(-YEARS)
        asked = figures().accepted
        await time.run_until(20)

    fired = due_times(tmp_path)
    assert len(fired) <= 1 + asked + 100  # one of the first engine, and a transaction under way
    assert fired == [10.0 * number for number in range(1, len(fired) + 1)]


@pytest.mark.parametrize("rule", RULES)
async def test_a_clock_years_behind_for_a_minute_asks_for_nothing_again(
    tmp_path: Path, time: PassingTime, rule: str
) -> None:
    time.errors |= {55.0: -YEARS, 115.0: 0.0}
    async with timers(tmp_path, time, rule) as place:
        await place.create("TIMER", **EVERY_TEN)
        await time.run_until(55)
    async with timers(tmp_path, time, rule) as place:
        await time.run_until(200)
        fired = due_times(tmp_path)

    assert len(fired) == len(set(fired))
    missed = {"once": range(60, 120, 10), "skip": range(60, 121, 10), "all": range(0)}[rule]
    assert [due for due in fired if due > 0] == [due for due in range(10, 201, 10) if due not in missed]
    assert len([due for due in fired if due < 0]) == 6


@pytest.mark.parametrize("rule", RULES)
async def test_a_start_with_a_clock_some_hours_ahead_takes_no_day_from_a_daily_timer(
    tmp_path: Path, time: PassingTime, rule: str
) -> None:
    time.errors |= {60.0: 10 * HOUR, 120.0: 0.0}
    async with timers(tmp_path, time, rule) as place:
        await place.create("TIMER", **{**EVERY_TEN, "schedule": "0 0 9 * * *"})
        await time.run_until(60)
    async with timers(tmp_path, time, rule) as place:
        await time.run_until(34 * HOUR)

        assert due_times(tmp_path) == [9 * HOUR, 33 * HOUR]


async def test_a_trigger_that_was_changed_while_the_clock_was_ahead_goes_on_when_it_is_right(
    tmp_path: Path, time: PassingTime
) -> None:
    time.errors |= {15.0: HOUR, 75.0: 0.0}
    async with timers(tmp_path, time, "once") as place:
        trigger = await place.create("TIMER", **EVERY_TEN)
        await time.run_until(45)
        await place.update(trigger, user_event="changed")
        await time.run_until(HOUR + 100)
        fired = due_times(tmp_path)

    before, changed = [10, HOUR + 20, HOUR + 30, HOUR + 40], [HOUR + 55, HOUR + 65]
    assert fired == [*before, *changed, *(due for due in range(75, int(HOUR) + 101, 10) if due not in changed)]


async def test_a_changed_trigger_asks_again_for_what_was_asked_ahead(tmp_path: Path, time: PassingTime) -> None:
    time.errors |= {15.0: HOUR, 75.0: 0.0}
    async with timers(tmp_path, time, "skip") as place:
        trigger = await place.create("TIMER", **EVERY_TEN)
        await time.run_until(80)
        await place.update(trigger, user_event="changed")
        await time.run_until(HOUR + 100)
        fired = due_times(tmp_path)

    assert sorted(due for due in set(fired) if fired.count(due) > 1) == list(range(int(HOUR) + 30, int(HOUR) + 80, 10))


async def test_the_key_of_a_request_names_trigger_generation_and_due_time(tmp_path: Path, time: PassingTime) -> None:
    async with timers(tmp_path, time, "once") as place:
        trigger = await place.create("TIMER", **EVERY_TEN)
        await time.run_until(10)

    assert rows(tmp_path, "SELECT token FROM idempotency") == [(f"timer:{trigger.id}:1:{BEGIN + 10:.0f}",)]


async def test_a_timer_that_sleeps_wakes_after_its_period_though_the_clock_was_set_back(tmp_path: Path) -> None:
    clock = ManualClock(BEGIN)
    async with house(tmp_path, [plugin], clock=clock) as place:
        await place.create("TIMER", **{**EVERY_TEN, "schedule": "@every 1s"})
        figures = place.engine.sources.statistics
        clock.advance(HOUR + 0.5)  # while the timer really sleeps
        await until(lambda: figures().accepted == 1)
        clock.advance(0.7 - HOUR)  # while the timer sleeps for half a second
        await until(lambda: figures().accepted >= 2)
        first, second, *_ = due_times(tmp_path)

    assert (first, second <= 1) == (HOUR, True)


async def test_what_was_due_before_a_timer_noticed_that_its_clock_was_set_back_is_late_and_not_missed(
    tmp_path: Path, time: PassingTime
) -> None:
    time.errors |= {3500.0: 10 * HOUR + 200, 3510.0: 0.0}
    async with timers(tmp_path, time, "skip") as place:
        await place.create("TIMER", **{**EVERY_TEN, "schedule": "0 0 * * * *"})
        await time.run_until(3500)
    async with timers(tmp_path, time, "skip"):
        await time.run_until(3 * HOUR)  # the first sleep takes 3500 seconds

    assert due_times(tmp_path) == [HOUR, 2 * HOUR, 3 * HOUR]
