from __future__ import annotations

import asyncio

import pytest

from engine.model import alarms as module
from engine.model.alarms import SPARE, Alarms
from tests.doubles import ManualClock

CHECK = 0.02
HOUR = 3600.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(check=CHECK)


async def within_a_minute(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 60)


async def test_an_alarm_rings_when_its_time_comes() -> None:
    clock, rung = ManualClock(), asyncio.Event()
    clock.call_at(clock.now(), rung.set)

    await within_a_minute(rung)


async def test_a_step_ahead_rings_the_alarms_that_it_passes(clock: ManualClock) -> None:
    passed, later = asyncio.Event(), asyncio.Event()
    clock.call_at(clock.now() + HOUR, passed.set)
    clock.call_at(clock.now() + 3 * HOUR, later.set)
    clock.advance(2 * HOUR)
    await within_a_minute(passed)

    assert not later.is_set()
    clock.advance(2 * HOUR)
    await within_a_minute(later)


async def test_an_alarm_does_not_ring_early_after_a_step_back(clock: ManualClock) -> None:
    rung, checked = asyncio.Event(), asyncio.Event()
    clock.call_at(clock.now() + 0.05, rung.set)
    clock.advance(-HOUR)
    clock.alarms.stepped.connect(lambda seconds: checked.set())
    await within_a_minute(checked)
    await asyncio.sleep(0.1)

    assert not rung.is_set()
    clock.advance(HOUR + 1)
    await within_a_minute(rung)


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
async def test_a_sleeper_is_woken_by_a_step(clock: ManualClock, seconds: float) -> None:
    sleeper = asyncio.ensure_future(clock.sleep_toward(clock.now() + 10 * HOUR))
    await asyncio.sleep(0)
    clock.advance(seconds)

    await asyncio.wait_for(sleeper, 60)


async def test_a_step_is_announced_once_with_its_size(clock: ManualClock) -> None:
    steps: list[float] = []
    rung = asyncio.Event()
    clock.alarms.stepped.connect(steps.append)
    clock.call_at(clock.now() + 2 * HOUR, rung.set)
    clock.advance(HOUR)
    await asyncio.sleep(10 * CHECK)
    clock.advance(-10.0)
    clock.call_at(clock.now(), rung.set)
    await within_a_minute(rung)

    assert steps == pytest.approx([HOUR, -10.0], abs=1.0)


async def test_no_timer_runs_without_alarms(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    alarm = clock.call_at(clock.now() + HOUR, lambda: None)
    alarm.cancel()
    looks: list[float] = []

    def now() -> float:
        looks.append(clock.now())
        return looks[-1]

    monkeypatch.setattr(clock.alarms, "_now", now)
    await asyncio.sleep(10 * CHECK)

    assert looks == []


async def test_an_alarm_can_be_cancelled_by_one_that_rings_before_it() -> None:
    clock, rung = ManualClock(), asyncio.Event()
    second = None

    def first() -> None:
        assert second is not None
        second.cancel()
        rung.set()

    clock.call_at(clock.now(), first)
    second = clock.call_at(clock.now(), lambda: pytest.fail("cancelled"))
    third = asyncio.Event()
    clock.call_at(clock.now(), third.set)
    await within_a_minute(rung)
    await within_a_minute(third)

    second.cancel()


async def test_cancelled_alarms_do_not_pile_up(clock: ManualClock) -> None:
    kept = clock.call_at(clock.now() + HOUR, lambda: None)
    for _ in range(10_000):
        clock.call_at(clock.now() + HOUR, lambda: None).cancel()

    assert len(clock.alarms._heap) <= 2 + SPARE + 1
    kept.cancel()


def test_a_new_event_loop_starts_without_the_alarms_of_another() -> None:
    clock = ManualClock()

    async def leave() -> module.Alarm:
        return clock.call_at(clock.now() + 0.01, lambda: pytest.fail("of an ended loop"))

    async def use(left: module.Alarm) -> None:
        rung = asyncio.Event()
        clock.call_at(clock.now(), rung.set)
        left.cancel()
        await within_a_minute(rung)

    asyncio.run(use(asyncio.run(leave())))


async def test_a_clock_that_runs_evenly_is_not_said_to_have_stepped() -> None:
    loop = asyncio.get_running_loop()
    alarms, rung = Alarms(loop.time, CHECK), asyncio.Event()
    alarms.stepped.connect(lambda seconds: pytest.fail("no step"))
    alarms.set(loop.time() + 5 * CHECK, rung.set)

    await within_a_minute(rung)
