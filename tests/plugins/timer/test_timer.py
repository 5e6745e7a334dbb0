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
    one = world(3600)
    await one.run(timer("CRON_TZ=Asia/Shanghai 0 30 8 * * *", user_event='{"job":"purge"}'))

    assert one.events == [
        {
            "version": "v1.0",
            "time": "2026-03-01T08:30:00+08:00",
            "trigger_type": "TIMER",
            "trigger_name": "t",
            "user_event": '{"job":"purge"}',
        }
    ]


async def test_an_interval_counts_from_the_last_change_of_the_trigger() -> None:
    one = world(3600)
    await one.run(timer("20m", "Rate"))

    assert [moment[11:19] for moment in one.moments()] == ["00:20:30", "00:40:30", "01:00:30"]


async def test_calendars_without_a_zone_are_read_in_that_of_the_setting() -> None:
    one = world(DAY, zone="America/New_York")
    await one.run(timer("0 0 9 * * *"))

    assert one.moments() == ["2026-03-01T09:00:00-05:00"]


@pytest.mark.parametrize("half", [0.0, 0.5], ids=["before the commit", "after the commit"])
@pytest.mark.parametrize("schedule", ["@every 7m", "0 */7 * * * *"])
async def test_a_crash_at_any_step_neither_loses_a_due_time_nor_doubles_it(schedule: str, half: float) -> None:
    whole = world(3600)
    await whole.run(timer(schedule))

    for step in range(1, whole.steps + 1):
        one = world(3600)
        one.crash_at = step + half
        assert not await one.run(timer(schedule))
        assert await one.run(timer(schedule))
        assert one.events == whole.events
    assert whole.steps > 7


@pytest.mark.parametrize(
    ("rule", "hours"),
    [("once", ["01", "05", "06"]), ("all", ["01", "02", "03", "04", "05", "06"]), ("skip", ["01", "06"])],
)
async def test_what_was_due_while_nothing_ran_comes_as_the_setting_says(rule: str, hours: list[str]) -> None:
    one = world(3600 + 60, catch_up=rule)
    await one.run(timer("0 0 * * * *"))
    one.clock.advance(4 * 3600)
    one.end += 5 * 3600

    await one.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in one.moments()] == hours


async def test_many_missed_times_are_caught_up_in_steps() -> None:
    one = world(0.5, catch_up="all")
    await one.run(timer("@every 1s"))
    one.clock.advance(1000)
    one.end += 1000

    await one.run(timer("@every 1s"))

    assert len(set(one.moments())) == len(one.events) == 1000
    assert one.steps == 11  # one stores the first position


async def test_what_was_due_while_the_trigger_was_disabled_never_comes() -> None:
    one = world(3600 + 60, catch_up="all")
    await one.run(timer("0 0 * * * *"))
    one.clock.advance(4 * 3600)
    one.generation, one.since, one.end = 3, one.clock.now(), one.end + 5 * 3600
    one.enabled_generation = 3

    await one.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in one.moments()] == ["01", "06"]


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
    one = world(12 * 3600, catch_up=rule)
    one.crash_at = 2  # the request of the first hour is not stored
    await one.run(timer("0 0 * * * *"))
    one.clock.advance(later)
    one.generation, one.since, one.end = 2, one.clock.now(), one.clock.now() + 2 * 3600
    await one.run(timer(schedule))

    first = 1 + later // 3600 + (schedule[2] == "0")
    follow = [f"{hour:02}:{schedule[2:4].strip():0>2}" for hour in (first, first + 1)]
    assert [moment[11:16] for moment in one.moments()] == [f"{hour}:00" for hour in hours] + follow


async def test_seventy_changes_a_second_lose_no_due_time() -> None:
    one = world(0, begin=BEGIN - 0.005)
    for number in range(28 * 72):
        one.crash_at = one.steps + 1 if number % 5 else -1.0  # four of five sources end before they store anything
        one.end = one.clock.now() + 1 / 72
        await one.run(timer("* * * * * *"))
        one.clock.advance(max(0.0, one.end - one.clock.now()))
        one.generation, one.since = one.generation + 1, one.clock.now()
    one.crash_at, one.end = -1.0, one.end + 0.5
    await one.run(timer("* * * * * *"))

    assert [moment[17:19] for moment in one.moments()] == [f"{second:02}" for second in range(30, 59)]


async def test_a_clock_that_is_set_back_fires_nothing_again() -> None:
    one = world(3 * 3600)
    one.end = BEGIN + 2 * 3600
    await one.run(timer("0 0 * * * *"))
    one.clock.advance(-2 * 3600)
    one.end = BEGIN + 3 * 3600

    await one.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in one.moments()] == ["01", "02", "03"]


async def test_a_machine_that_slept_is_told_as_the_setting_says() -> None:
    one = world(5 * 3600 + 60)
    sleeping = timer("0 0 * * * *")
    one.clock.advance(1)
    accept, slept = one.clock.advance, list[bool]()

    def advance(seconds: float) -> None:
        accept(seconds)
        if seconds and not slept:
            slept.append(True)
            accept(3 * 3600)  # the machine wakes up

    one.clock.advance = advance  # type: ignore[method-assign]
    await one.run(sleeping)

    assert [moment[11:13] for moment in one.moments()] == ["04", "05"]


@pytest.mark.parametrize(
    ("disturbed", "hours"),
    [("delays", ["01", "02", "03", "04", "05"]), ("jumps", ["01", "02", "04", "05"])],
    ids=["late in a full backlog", "missed as the clock is set ahead"],
)
async def test_what_is_due_while_a_request_is_stored_is_late_or_missed(disturbed: str, hours: list[str]) -> None:
    one = world(5 * 3600)
    setattr(one, disturbed, [0.0, 0.0, 2.5 * 3600])

    await one.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in one.moments()] == hours


async def test_what_was_due_while_the_function_was_switched_off_comes_as_the_setting_says() -> None:
    one = world(5 * 3600)
    off = [0.0, 2.5 * 3600]

    def switched_off() -> bool:
        seconds = off.pop(0) if off else 0.0
        one.clock.advance(seconds)
        return seconds > 0

    one.switched_off = switched_off
    await one.run(timer("0 0 * * * *"))

    assert [moment[11:13] for moment in one.moments()] == ["01", "04", "05"]


async def test_a_timer_that_waits_for_its_function_notes_the_time_before_it_calls() -> None:
    one = world(2 * 3600)
    one.mode, one.crash_at = Mode.SYNC, 3
    await one.run(timer("0 0 * * * *", sync_execution=True))
    await one.run(timer("0 0 * * * *", sync_execution=True))

    assert one.events == []
    assert [call["time"][11:13] for call in one.calls] == ["01", "02"]


async def test_a_timer_that_waits_for_its_function_calls_on_after_its_clock_was_ahead() -> None:
    one = world(3600)
    one.mode = Mode.SYNC
    for ahead, hours in ((0, 0), (10 * 3600, 0), (-10 * 3600, 2)):
        one.clock.advance(ahead)
        one.end += ahead + hours * 3600
        await one.run(timer("0 0 * * * *", sync_execution=True))

    assert [call["time"][11:13] for call in one.calls] == ["01", "11", "02", "03"]


async def test_a_timer_that_waits_for_a_slow_function_does_not_fall_behind_ever_further() -> None:
    one = world(4 * 3600)
    one.mode, one.takes = Mode.SYNC, 90.0
    await one.run(timer("0 * * * * *", sync_execution=True))

    late = [moment - at(call["time"]) for moment, call in zip(one.called_at, one.calls, strict=True)]
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
