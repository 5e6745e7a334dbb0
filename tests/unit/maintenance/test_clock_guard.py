from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from engine.errors import NotStored
from engine.maintenance.clock_guard import DAY, ClockGuard
from engine.model import Invocation
from engine.model.alarms import Alarms
from engine.model.expiry import Expiry
from tests.doubles import ManualClock, MemoryStorage
from tests.support.damage import storing
from tests.support.storages import made

LONG = 600.0


async def accepted(storage: MemoryStorage, at: float) -> Invocation:
    key = storage.identity.next_key(at)
    invocation = Invocation(key=key, request_id=storage.identity.request_id(key), function_id=1, first_due_at=at)
    await storage.journal.append(invocation)
    return invocation


@asynccontextmanager
async def guarding(
    storage: MemoryStorage, clock: ManualClock, *, tolerance: float = 30.0, hold: float = LONG
) -> AsyncIterator[ClockGuard]:
    """Run a guard like one start of an engine."""
    clock.expiry, clock.alarms = Expiry(clock.now), Alarms(clock.now, check=0.02)
    guard = ClockGuard(
        clock=clock, records=storage.records, store=storage.store("clock"), tolerance=tolerance * DAY, hold=hold
    )
    clock.expiry.doubted.connect(guard.note_doubt)
    clock.expiry.cleared.connect(guard.note_correction)
    clock.alarms.stepped.connect(lambda step: clock.expiry.check())
    await guard.load()
    async with anyio.create_task_group() as tasks:
        await tasks.start(guard.run)
        with anyio.fail_after(60):
            yield guard
        tasks.cancel_scope.cancel()


async def test_a_new_data_directory_trusts_the_clock() -> None:
    async with guarding(MemoryStorage(), ManualClock()) as guard:
        assert not guard.state().held


@pytest.mark.parametrize(
    ("days", "tolerance", "held"), [(29, 30, False), (31, 30, True), (-400, 30, False), (10_000, 0, False)]
)
async def test_a_clock_is_in_doubt_if_it_is_too_far_ahead_of_the_newest_invocation(
    days: int, tolerance: float, held: bool
) -> None:
    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    clock.advance(days * DAY)
    async with guarding(storage, clock, tolerance=tolerance) as guard:
        assert guard.state().held is held


async def test_a_clock_is_in_doubt_if_it_is_too_far_ahead_of_the_last_start_without_invocations() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    async with guarding(storage, clock) as guard:
        assert not guard.state().held
    clock.advance(31 * DAY)
    async with guarding(storage, clock) as guard:
        assert guard.state().held


@pytest.mark.parametrize("days", [29, 31])
async def test_the_newest_invocation_is_the_reference_if_the_stored_one_cannot_be_read(
    tmp_path: Path, days: int
) -> None:
    clock = ManualClock()
    async with storing(tmp_path) as storage:
        await storage.journal.append(made(storage, at=clock.now()))
        await storage.store("clock").write("clock", {"reference": b"no JSON"})
    clock.advance(days * DAY)
    async with storing(tmp_path) as storage:
        store = storage.store("clock")
        guard = ClockGuard(clock=clock, records=storage.records, store=store, tolerance=30 * DAY, hold=LONG)
        with capture_logs() as lines:
            await guard.load()
        assert guard.state().held is (days > 30)
        assert "stored reference of the clock cannot be read" in {line["event"] for line in lines}


async def test_a_full_disk_does_not_prevent_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*arguments: object) -> None:
        raise NotStored("the disk is full")

    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    clock.advance(31 * DAY)
    monkeypatch.setattr(storage.store("clock"), "write", full)
    async with guarding(storage, clock) as guard:
        assert guard.state().held


async def test_time_for_expiry_runs_on_from_the_newest_invocation_and_the_log_tells() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    newest = await accepted(storage, clock.now())
    clock.advance(100 * DAY)
    with capture_logs() as logs:
        async with guarding(storage, clock) as guard:
            state = guard.state()
            assert newest.accepted_at <= clock.expiry.now() <= newest.accepted_at + 60
            assert (state.reference, round(state.ahead / DAY)) == (newest.accepted_at, 100)
            assert 0 < state.ends_in <= LONG

    assert [(line["log_level"], line["days"]) for line in logs] == [("warning", 100)]


async def test_an_accepted_clock_is_trusted_at_once_and_at_the_next_start() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    clock.advance(100 * DAY)
    ends: list[bool] = []
    async with guarding(storage, clock) as guard:
        guard.released.connect(lambda: ends.append(clock.expiry.held))
        assert not (await guard.accept()).held
        assert clock.expiry.now() == clock.now()
        await guard.accept()
    clock.advance(10 * DAY)
    async with guarding(storage, clock) as guard:
        assert not guard.state().held

    assert ends == [False]


async def test_the_hold_ends_by_itself() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    clock.advance(100 * DAY)
    over = asyncio.Event()
    async with guarding(storage, clock, hold=0.05) as guard:
        guard.released.connect(over.set)
        assert guard.state().held
        await over.wait()
        assert not guard.state().held
    async with guarding(storage, clock) as guard:
        assert not guard.state().held


async def test_a_restart_during_the_hold_does_not_trust_what_was_accepted_meanwhile() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    newest = await accepted(storage, clock.now())
    clock.advance(100 * DAY)
    async with guarding(storage, clock):
        await accepted(storage, clock.now())
    clock.advance(60)
    async with guarding(storage, clock) as guard:
        assert guard.state().held
        assert guard.state().reference == newest.accepted_at


async def test_a_clock_that_was_corrected_is_trusted_at_the_next_start() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    clock.advance(100 * DAY)
    async with guarding(storage, clock):
        await accepted(storage, clock.now())
    clock.advance(-99 * DAY)
    async with guarding(storage, clock) as guard:
        assert not guard.state().held
    clock.advance(40 * DAY)
    async with guarding(storage, clock) as guard:
        assert guard.state().held
        assert guard.state().reference == pytest.approx(clock.now() - 40 * DAY)


async def test_times_of_a_clock_still_farther_ahead_do_not_hide_that_this_one_is_ahead() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    await accepted(storage, clock.now())
    await accepted(storage, clock.now() + 30_000 * DAY)
    clock.advance(10_000 * DAY)
    async with guarding(storage, clock) as guard:
        assert guard.state().held


# --- steps while the engine runs ----------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "held"), [(29, False), (31, True), (-400, False)])
async def test_a_step_of_more_than_the_tolerance_begins_a_hold(days: int, held: bool) -> None:
    clock = ManualClock()
    before = clock.now()
    async with guarding(MemoryStorage(), clock) as guard:
        clock.advance(days * DAY)
        expires = clock.expiry.now()
        state = guard.state()

    assert (state.held, before <= expires <= before + 60) == (held, held)
    assert round(state.ahead / DAY) == (days if held else 0)


async def test_an_alarm_notices_the_step_and_the_log_tells_once() -> None:
    clock, noticed = ManualClock(), asyncio.Event()
    with capture_logs() as logs:
        async with guarding(MemoryStorage(), clock):
            clock.expiry.doubted.connect(noticed.set)
            alarm = clock.call_at(clock.now() + 1e9, lambda: None)
            clock.advance(100 * DAY)
            await noticed.wait()
            alarm.cancel()

    assert [(line["log_level"], line["days"], line["event"][:23]) for line in logs] == [
        ("warning", 100, "the clock was set far a")
    ]


async def test_steps_within_the_tolerance_do_not_add_up() -> None:
    clock = ManualClock()
    async with guarding(MemoryStorage(), clock) as guard:
        for _ in range(10):
            clock.advance(20 * DAY)
            assert clock.expiry.now() == clock.now()
        assert not guard.state().held


async def test_a_tolerance_of_0_trusts_every_step() -> None:
    clock = ManualClock()
    async with guarding(MemoryStorage(), clock, tolerance=0) as guard:
        clock.advance(10_000 * DAY)
        assert clock.expiry.now() == clock.now()
        assert not guard.state().held


async def test_a_step_that_is_accepted_is_trusted_and_the_next_one_is_not() -> None:
    clock = ManualClock()
    async with guarding(MemoryStorage(), clock) as guard:
        for _ in range(2):
            clock.advance(100 * DAY)
            assert guard.state().held
            assert not (await guard.accept()).held
            assert clock.expiry.now() == clock.now()


async def test_the_hold_after_a_step_ends_by_itself() -> None:
    clock, over = ManualClock(), asyncio.Event()
    async with guarding(MemoryStorage(), clock, hold=0.05) as guard:
        guard.released.connect(over.set)
        for _ in range(2):
            clock.advance(100 * DAY)
            assert guard.state().held
            await over.wait()
            over.clear()
            assert not guard.state().held


@pytest.mark.parametrize("start", [True, False])
async def test_the_hold_ends_when_the_clock_is_set_back(start: bool) -> None:
    storage, clock, over = MemoryStorage(), ManualClock(), asyncio.Event()
    await accepted(storage, clock.now())
    if start:
        clock.advance(400 * DAY)
    with capture_logs() as logs:
        async with guarding(storage, clock) as guard:
            guard.released.connect(over.set)
            if not start:
                clock.advance(400 * DAY)
            assert guard.state().held
            await anyio.wait_all_tasks_blocked()
            clock.advance(-200 * DAY)
            await anyio.sleep(0.1)
            assert guard.state().held
            clock.advance(-199 * DAY)
            await over.wait()
            assert not guard.state().held

    assert [line["reason"] for line in logs if "reason" in line] == ["the clock was corrected"]


async def test_a_restart_during_the_hold_after_a_step_holds_anew() -> None:
    storage, clock = MemoryStorage(), ManualClock()
    before = clock.now()
    async with guarding(storage, clock) as guard:
        clock.advance(100 * DAY)
        assert guard.state().held
        await anyio.wait_all_tasks_blocked()
        await accepted(storage, clock.now())
    async with guarding(storage, clock) as guard:
        assert guard.state().held
        assert guard.state().reference == pytest.approx(before, abs=60)
