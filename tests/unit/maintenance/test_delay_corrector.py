from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from engine.maintenance.delay_corrector import STEP, DelayCorrector
from engine.model import Invocation
from engine.model.identity import EARLIEST
from engine.testing import ManualClock, MemoryStorage

DAY = 86_400.0
WAIT = 0.05


class Correcting:
    def __init__(self, clock: ManualClock) -> None:
        self.clock, self.storage, self.corrected = clock, MemoryStorage(), asyncio.Event()
        self.corrector = DelayCorrector(self.storage.journal, clock, wait=WAIT)
        self.corrector.corrected.connect(lambda next_due: self.corrected.set())

    async def accept(self, delay: float) -> Invocation:
        now = self.clock.now()
        key = self.storage.identity.next_key(now)
        request_id, due_at = self.storage.identity.request_id(key), now + delay
        one = Invocation(
            key=key, request_id=request_id, function_id=1, first_due_at=due_at, due_at=due_at, rank=due_at, delayed=True
        )
        await self.storage.journal.append(one)
        return one

    def due_in(self, one: Invocation) -> float:
        return self.storage.rows[one.key].invocation.due_at - self.clock.now()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            await tasks.start(self.corrector.run)
            with anyio.fail_after(60):
                yield
            tasks.cancel_scope.cancel()


async def test_due_times_are_corrected_some_time_after_a_start() -> None:
    now = Correcting(ManualClock(EARLIEST + 1000 * DAY))
    now.clock.advance(3650 * DAY)
    ones = [await now.accept(3600.0) for _ in range(STEP + 1)]
    now.clock.advance(-3650 * DAY)
    async with now.running():
        while not all(now.due_in(one) < DAY for one in ones):  # noqa: ASYNC110  (each step sets an event, not the last)
            await anyio.sleep(0.01)

        assert {round(now.due_in(one)) for one in ones} == {3600}


async def test_due_times_are_corrected_some_time_after_a_step_back() -> None:
    now = Correcting(ManualClock(EARLIEST + 1000 * DAY))
    async with now.running():
        await anyio.sleep(4 * WAIT)
        now.clock.advance(3650 * DAY)
        one = await now.accept(3600.0)
        now.clock.advance(-3650 * DAY)
        now.corrector.note_step(-3650 * DAY)
        await now.corrected.wait()

        assert now.due_in(one) == pytest.approx(3600, abs=1)


async def test_a_clock_that_is_behind_for_a_while_changes_no_due_time() -> None:
    now = Correcting(ManualClock(EARLIEST + 3650 * DAY))
    now.corrector = DelayCorrector(now.storage.journal, now.clock, wait=3600.0)
    one = await now.accept(3600.0)
    now.clock.advance(-3000 * DAY)
    async with now.running():
        await anyio.sleep(0.1)
        now.clock.advance(3000 * DAY)

        assert now.due_in(one) == pytest.approx(3600)


async def test_a_clock_before_all_engines_changes_no_due_time() -> None:
    now = Correcting(ManualClock(EARLIEST + 1000 * DAY))
    one = await now.accept(3600.0)
    now.clock.advance(-2000 * DAY)
    async with now.running():
        await anyio.sleep(4 * WAIT)

        assert now.due_in(one) == pytest.approx(3600 + 2000 * DAY)


async def test_a_correction_goes_on_when_the_disk_takes_writes_again() -> None:
    now = Correcting(ManualClock(EARLIEST + 1000 * DAY))
    now.clock.advance(3650 * DAY)
    one = await now.accept(3600.0)
    now.clock.advance(-3650 * DAY)
    now.storage.fail()
    async with now.running():
        await anyio.sleep(4 * WAIT)
        assert now.due_in(one) > DAY
        now.storage.heal()
        await now.corrected.wait()

        assert now.due_in(one) == pytest.approx(3600, abs=1)
