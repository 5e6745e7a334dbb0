"""Discarding of invocations whose function is deleted: in steps, counted, retried after write failures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from msgspec import Struct, field

from engine.errors import NotStored, PageDamaged
from engine.maintenance import discarder
from engine.maintenance.discarder import Discarder
from engine.model import Invocation, Outcome, State
from engine.model.clock import SystemClock
from engine.protocols import Discarded
from engine.scheduling.backlog import Backlog
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.testing import MemoryStorage
from tests.support.builders import waiting
from tests.unit.pipeline.test_dispatcher import LIMITS


class Discarding(Struct, kw_only=True):
    """Discarder between a real scheduler and storage in memory."""

    storage: MemoryStorage
    scheduler: Scheduler
    backlog: Backlog
    discarder: Discarder
    steps: list[Sequence[int]] = field(default_factory=list)

    async def send(self, function_id: int = 1, count: int = 1, **fields: Any) -> list[Invocation]:
        sent = [waiting(function_id, payload=b"{}", **fields) for _ in range(count)]
        for one in sent:
            await self.storage.journal.append(one)
            self.backlog.add(function_id, len(one.payload))
            self.scheduler.push(one)
        return sent

    def states(self, invocations: Sequence[Invocation]) -> set[State]:
        return {self.storage.rows[one.key].state for one in invocations}


@asynccontextmanager
async def discarding() -> AsyncIterator[Discarding]:
    storage, backlog, steps = MemoryStorage(), Backlog(LIMITS), list[Sequence[int]]()
    queue = RunQueue(slots=2, sync_slots=0, memory=1000)
    scheduler = Scheduler(queue, storage.window, SystemClock())
    made = Discarder(storage.journal, scheduler, backlog, SystemClock())
    made.ends_stored.connect(steps.append)
    scheduler.pushed_to_closed.connect(made.enqueue)
    async with anyio.create_task_group() as tasks:
        await tasks.start(scheduler.run)
        await tasks.start(made.run)
        yield Discarding(storage=storage, scheduler=scheduler, backlog=backlog, discarder=made, steps=steps)
        tasks.cancel_scope.cancel()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def test_all_that_waits_ends_in_steps_and_others_stay() -> None:
    async with discarding() as it:
        gone = [*await it.send(count=500), *await it.send(delayed=True, due_at=1e12)]
        others = await it.send(2, count=3)

        it.discarder.discard(1)
        await until(lambda: it.backlog.rows == 3)

        assert (it.states(gone), it.states(others)) == ({State.DISCARD}, {State.WAIT})
        assert [len(step) for step in it.steps] == [200, 200, 101]
        assert it.backlog.size == sum(len(one.payload) for one in others)


async def test_what_comes_later_ends_too() -> None:
    async with discarding() as it:
        it.discarder.discard(1)
        late = [*await it.send(), *await it.send(delayed=True, due_at=1e12)]
        await until(lambda: it.backlog.rows == 0)

        assert it.states(late) == {State.DISCARD}


async def test_a_damaged_page_stops_the_discarding_of_its_function_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async with discarding() as it:
        first, journal, asked = await it.send(), it.storage.journal, list[int]()
        discard = journal.discard

        async def fail(function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
            asked.append(function_id)
            if function_id == 1:
                raise PageDamaged("malformed")
            return await discard(function_id, after, rows, outcome)

        monkeypatch.setattr(journal, "discard", fail)
        it.discarder.discard(1)
        it.discarder.discard(2)
        await until(lambda: 2 in asked)

        assert asked == [1, 2]
        assert it.states(first) == {State.WAIT}


async def test_a_failing_disk_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discarder, "RETRY_DELAY", 0)
    async with discarding() as it:
        gone, journal, asked = await it.send(), it.storage.journal, 0
        discard = journal.discard

        async def fail_once(function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise NotStored("disk full")
            return await discard(function_id, after, rows, outcome)

        monkeypatch.setattr(journal, "discard", fail_once)
        it.discarder.discard(1)
        await until(lambda: it.backlog.rows == 0)

        assert (it.states(gone), asked) == ({State.DISCARD}, 2)
