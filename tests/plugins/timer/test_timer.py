"""TIMER: one request per due time across restarts and failures, and the rules for missed due times."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import pytest

from engine.config.plugin_registry import Registry
from engine.config.settings import load_settings
from engine.errors import SettingsError
from engine.model import Mode
from plugins.timer import plugin
from plugins.timer.options import TimerOptions, TimerSettings
from plugins.timer.source import TimerTrigger
from tests.support.simulated import World

DAY = 86_400


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


BEGIN = at("2026-03-01T00:00:30+00:00")


def timer(schedule: str, kind: Literal["Rate", "Cron"] = "Cron", **options: Any) -> TimerTrigger:
    return TimerTrigger(TimerOptions(name="t", schedule_type=kind, schedule=schedule, **options))


def world(seconds: float, *, begin: float = BEGIN, **settings: Any) -> World:
    return World(begin, begin + seconds, TimerSettings(**settings))


async def test_the_event_is_the_documented_one() -> None:
    place = world(3600)
    await place.run(timer("CRON_TZ=Asia/Shanghai 0 30 8 * * *", user_event='{"job":"purge"}'))

    assert place.events == [
        {
            "version": "v1.0",
            "time": "2026-03-01T08:30:00+08:00",
            "trigger_type": "TIMER",
            "trigger_name": "t",
            "user_event": '{"job":"purge"}',
        }
    ]


async def test_an_interval_counts_from_the_last_change_of_the_trigger() -> None:
    place = world(3600)
    await place.run(timer("20m", "Rate"))

    assert [moment[11:19] for moment in place.moments()] == ["00:20:30", "00:40:30", "01:00:30"]


async def test_calendars_without_a_zone_are_read_in_that_of_the_setting() -> None:
    place = world(DAY, zone="America/New_York")
    await place.run(timer("0 0 9 * * *"))

    assert place.moments() == ["2026-03-01T09:00:00-05:00"]


@pytest.mark.parametrize("half", [0.0, 0.5], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("schedule", ["@every 7m", "0 */7 * * * *"])
async def test_a_crash_at_any_step_neither_loses_a_due_time_nor_doubles_it(schedule: str, half: float) -> None:
    whole = world(3600)
    await whole.run(timer(schedule))

    for step in range(1, whole.steps + 1):
        place = world(3600)
        place.crash_at = step + half
        assert not await place.run(timer(schedule))
        assert await place.run(timer(schedule))
        assert place.events == whole.events
    assert whole.steps > 7


@pytest.mark.parametrize(
    ("rule", "hours"),
    [("once", ["01", "05", "06"]), ("all", ["01", "02", "03", "04", "05", "06"]), ("skip", ["01", "06"])],
)
async def test_what_was_due_while_nothing_ran_comes_as_the_setting_says(rule: str, hours: list[str]) -> None:
    place = world(3600 + 60, catch_up=rule)
    await place.run(timer("0 0 * * * *"))
    place.clock.advance(4 * 3600)
    place.end += 5 * 3600

    await place.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in place.moments()] == hours


async def test_many_missed_times_are_caught_up_in_steps() -> None:
    place = world(0.5, catch_up="all")
    await place.run(timer("@every 1s"))
    place.clock.advance(1000)
    place.end += 1000

    await place.run(timer("@every 1s"))

    assert len(set(place.moments())) == len(place.events) == 1000
    assert place.steps == 11  # one stores the first position


async def test_what_was_due_while_the_trigger_was_disabled_never_comes() -> None:
    place = world(3600 + 60, catch_up="all")
    await place.run(timer("0 0 * * * *"))
    place.clock.advance(4 * 3600)
    place.generation, place.since, place.end = 3, place.clock.now(), place.end + 5 * 3600
    place.enabled_generation = 3

    await place.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in place.moments()] == ["01", "06"]


@pytest.mark.parametrize(
    ("rule", "later", "hours"),
    [
        ("all", 4 * 3600, ["01", "02", "03", "04", "05"]),
        ("once", 4 * 3600, ["05"]),
        ("skip", 4 * 3600, []),
        ("skip", 30, ["01"]),
    ],
)
@pytest.mark.parametrize("schedule", ["0 0 * * * *", "0 30 * * * *"], ids=["same schedule", "another one"])
async def test_what_waits_for_a_full_backlog_is_owed_when_the_trigger_is_changed(
    rule: str, later: int, hours: list[str], schedule: str
) -> None:
    place = world(12 * 3600, catch_up=rule)
    place.crash_at = 2  # the request of the first hour is not stored
    await place.run(timer("0 0 * * * *"))
    place.clock.advance(later)
    place.generation, place.since, place.end = 2, place.clock.now(), place.clock.now() + 2 * 3600
    await place.run(timer(schedule))

    first = 1 + later // 3600 + (schedule[2] == "0")
    follow = [f"{hour:02}:{schedule[2:4].strip():0>2}" for hour in (first, first + 1)]
    assert [moment[11:16] for moment in place.moments()] == [f"{hour}:00" for hour in hours] + follow


async def test_seventy_changes_a_second_lose_no_due_time() -> None:
    place = world(0, begin=BEGIN - 0.005)
    for number in range(28 * 72):
        place.crash_at = place.steps + 1 if number % 5 else -1.0  # four of five sources end before they store anything
        place.end = place.clock.now() + 1 / 72
        await place.run(timer("* * * * * *"))
        place.clock.advance(max(0.0, place.end - place.clock.now()))
        place.generation, place.since = place.generation + 1, place.clock.now()
    place.crash_at, place.end = -1.0, place.end + 0.5
    await place.run(timer("* * * * * *"))

    assert [moment[17:19] for moment in place.moments()] == [f"{second:02}" for second in range(30, 59)]


async def test_a_clock_that_is_set_back_fires_nothing_again() -> None:
    place = world(3 * 3600)
    place.end = BEGIN + 2 * 3600
    await place.run(timer("0 0 * * * *"))
    place.clock.advance(-2 * 3600)
    place.end = BEGIN + 3 * 3600

    await place.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in place.moments()] == ["01", "02", "03"]


async def test_a_machine_that_slept_is_told_as_the_setting_says() -> None:
    place = world(5 * 3600 + 60)
    sleeping = timer("0 0 * * * *")
    place.clock.advance(1)
    accept, slept = place.clock.advance, list[bool]()

    def advance(seconds: float) -> None:
        accept(seconds)
        if seconds and not slept:
            slept.append(True)
            accept(3 * 3600)  # the machine wakes up

    place.clock.advance = advance  # type: ignore[method-assign]
    await place.run(sleeping)

    assert [moment[11:13] for moment in place.moments()] == ["04", "05"]


@pytest.mark.parametrize(
    ("disturbed", "hours"),
    [("delays", ["01", "02", "03", "04", "05"]), ("jumps", ["01", "02", "04", "05"])],
    ids=["late in a full backlog", "missed as the clock is set ahead"],
)
async def test_what_is_due_while_a_request_is_stored_is_late_or_missed(disturbed: str, hours: list[str]) -> None:
    place = world(5 * 3600)
    setattr(place, disturbed, [0.0, 0.0, 2.5 * 3600])

    await place.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in place.moments()] == hours


async def test_what_was_due_while_the_function_was_switched_off_comes_as_the_setting_says() -> None:
    place = world(5 * 3600)
    off = [0.0, 2.5 * 3600]

    def switched_off() -> bool:
        seconds = off.pop(0) if off else 0.0
        place.clock.advance(seconds)
        return seconds > 0

    place.switched_off = switched_off
    await place.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in place.moments()] == ["01", "04", "05"]


async def test_a_timer_that_waits_for_its_function_notes_the_time_before_it_calls() -> None:
    place = world(2 * 3600)
    place.mode, place.crash_at = Mode.SYNC, 3
    await place.run(timer("0 0 * * * *", sync_execution=True))
    await place.run(timer("0 0 * * * *", sync_execution=True))

    assert place.events == []
    assert [call["time"][11:13] for call in place.calls] == ["01", "02"]


async def test_a_timer_that_waits_for_its_function_calls_on_after_its_clock_was_ahead() -> None:
    place = world(3600)
    place.mode = Mode.SYNC
    for ahead, hours in ((0, 0), (10 * 3600, 0), (-10 * 3600, 2)):
        place.clock.advance(ahead)
        place.end += ahead + hours * 3600
        await place.run(timer("0 0 * * * *", sync_execution=True))

    assert [call["time"][11:13] for call in place.calls] == ["01", "11", "02", "03"]


async def test_a_timer_that_waits_for_a_slow_function_does_not_fall_behind_ever_further() -> None:
    place = world(4 * 3600)
    place.mode, place.takes = Mode.SYNC, 90.0
    await place.run(timer("0 * * * * *", sync_execution=True))

    late = [moment - at(call["time"]) for moment, call in zip(place.called_at, place.calls, strict=True)]
    assert len(late) >= 4 * 3600 / 90 - 1
    assert max(late) < 2 * 60


def test_the_settings_of_timers_may_stand_in_the_environment() -> None:
    settings = load_settings(environ={"FUNCTIOND_PLUGINS__TIMER__CATCH_UP": "skip"})

    timers = Registry([plugin], settings.plugins).service(plugin)

    assert timers == TimerSettings(catch_up="skip", zone="UTC")


@pytest.mark.parametrize("table", [{"zone": "Nowhere/City"}, {"catch_up": "twice"}, {"zones": "UTC"}])
def test_bad_settings_of_timers_stop_the_start(table: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(table))):
        Registry([plugin], {"timer": table})
