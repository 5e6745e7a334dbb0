"""Cancellation and discarding of many invocations, in steps, counted, and after write failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from engine.errors import NotStored, PageDamaged
from engine.functions.catalog import Catalog
from engine.model import Code, Invocation, State
from engine.model.clock import SystemClock
from engine.model.retry import RetryPolicy
from engine.pipeline import discarder
from engine.pipeline.discarder import Discarder
from engine.protocols import FIRST, Place, Scan, Selection
from tests.support.waiting import until
from tests.unit.pipeline.test_dispatcher import Dispatching, dispatching

WAIT, BOTH = frozenset({State.WAIT}), frozenset({State.WAIT, State.RUNNING})


async def cancelled(
    now: Dispatching, function_id: int = 1, states: frozenset[State] = WAIT, limit: int = 500
) -> list[int]:
    """Make steps until the last one, and return the keys of all ended invocations."""
    keys, place = list[int](), FIRST
    following: Place | None = place
    while following is not None:
        selection = Selection(function_id=function_id)
        step = await now.dispatcher.cancellation.step(selection, states, following, limit)
        keys += step.keys
        following = step.reached
    return keys


def states(now: Dispatching, invocations: Sequence[Invocation]) -> set[State]:
    return {now.storage.rows[invocation.key].state for invocation in invocations}


async def test_all_that_waits_ends_and_what_runs_goes_on() -> None:
    async with dispatching() as now:
        running = await now.send()
        await now.running(running)
        waiting = [await now.send() for _ in range(240)]
        delayed = await now.send(delayed=True, due_at=SystemClock().now() + 1000)
        other = await now.send(2)
        told = list[tuple[int, State, int]]()
        now.announced.waiting_ended.connect(lambda function_id, end, rows: told.append((function_id, end.state, rows)))

        keys = await cancelled(now, limit=150)
        now.gate.set()

        assert sorted(keys) == sorted(invocation.key for invocation in [*waiting, delayed])
        assert states(now, [*waiting, delayed]) == {State.FAIL}
        assert await now.end_of(running) is State.SUCCESS
        assert await now.end_of(other) is State.SUCCESS
        assert told == [(1, State.FAIL, rows) for rows in (100, 50, 91)]
        assert now.dispatcher.statistics().codes[Code.CANCELLED] == 241
        assert (now.backlog.rows, now.backlog.size) == (0, 0)


async def test_running_invocations_are_cancelled_on_demand() -> None:
    async with dispatching(slots=2) as now:
        running = [await now.send(), await now.send()]
        for invocation in running:
            await now.running(invocation)
        waiting = await now.send()

        assert sorted(await cancelled(now, states=BOTH)) == sorted(invocation.key for invocation in [*running, waiting])
        assert [await now.end_of(invocation) for invocation in [*running, waiting]] == [State.FAIL] * 3


async def test_more_running_ones_than_one_step_ends_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pipeline.cancellation.MOST_RUNNING", 2)
    async with dispatching(slots=5) as now:
        running = [await now.send() for _ in range(5)]
        for invocation in running:
            await now.running(invocation)

        assert sorted(await cancelled(now, states=BOTH)) == sorted(invocation.key for invocation in running)


async def test_callers_that_wait_for_a_cancelled_invocation_are_woken() -> None:
    async with dispatching() as now:
        await now.running(await now.send())
        waiting = await now.send()
        caller = asyncio.ensure_future(now.dispatcher.ended(waiting.key, None))
        await asyncio.sleep(0)
        await cancelled(now)

        await caller
        now.gate.set()


async def test_ends_that_the_disk_refuses_leave_all_in_the_queue() -> None:
    async with dispatching() as now:
        await now.running(await now.send())
        waiting = [await now.send(2) for _ in range(3)]
        now.storage.fail()
        with pytest.raises(NotStored):
            await cancelled(now, 2)
        now.storage.heal()
        now.gate.set()

        assert {await now.end_of(invocation) for invocation in waiting} == {State.SUCCESS}


@pytest.mark.parametrize("turns", range(12))
async def test_whenever_all_are_cancelled_each_ends_once(turns: int) -> None:
    async with dispatching() as now:
        first = await now.send()
        await now.running(first)
        waiting = [await now.send() for _ in range(3)]
        now.gate.set()
        for _ in range(turns):  # one of them gets its slot in one of these turns
            await asyncio.sleep(0)
        keys = await cancelled(now)

        ends = [await now.end_of(invocation) for invocation in waiting]
        assert [waiter.key for waiter, end in zip(waiting, ends, strict=True) if end is State.FAIL] == sorted(keys)
        await until(lambda: sum(now.dispatcher.statistics().outcomes.values()) == 4)  # a turn after the end is stored
        assert (now.dispatcher.statistics().outcomes["FAIL"], now.backlog.rows) == (len(keys), 0)


# --- discarding ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def discarding() -> AsyncIterator[tuple[Dispatching, Discarder]]:
    async with dispatching() as now, anyio.create_task_group() as tasks:
        made = Discarder(
            scheduler=now.scheduler,
            storage=now.storage,
            cancellation=now.dispatcher.cancellation,
            catalog=cast("Catalog", now.functions),
            policy=RetryPolicy(),
            clock=SystemClock(),
        )
        now.scheduler.kept_out.connect(made.note_push)
        await tasks.start(made.run)
        yield now, made
        tasks.cancel_scope.cancel()


async def test_all_that_waits_ends_in_steps_and_others_stay() -> None:
    async with discarding() as (now, made):
        steps = list[int]()
        now.announced.waiting_ended.connect(lambda function_id, end, rows: steps.append(rows))
        running = await now.send()
        await now.running(running)
        gone = [await now.send() for _ in range(250)]
        gone.append(await now.send(delayed=True, due_at=1e12))
        other = await now.send(2)

        made.discard(1)
        await until(lambda: now.backlog.rows == 2)
        now.gate.set()

        assert states(now, gone) == {State.DISCARD}
        assert [await now.end_of(invocation) for invocation in (running, other)] == [State.SUCCESS] * 2
        assert steps == [100, 100, 51]
        assert now.dispatcher.statistics().codes[Code.FUNCTION_MISSING] == 251
        assert now.dispatcher.statistics().outcomes["DISCARD"] == 251


async def test_invocations_that_come_during_the_discard_end_too() -> None:
    async with discarding() as (now, made):
        made.discard(1)
        late = [await now.send(), await now.send(delayed=True, due_at=1e12)]
        await until(lambda: now.backlog.rows == 0)

        assert states(now, late) == {State.DISCARD}


@pytest.mark.parametrize(
    ("error", "state"), [(PageDamaged("malformed"), State.WAIT), (NotStored("disk full"), State.DISCARD)]
)
async def test_a_failing_disk_delays_the_discard_and_a_damaged_page_ends_it(
    monkeypatch: pytest.MonkeyPatch, error: Exception, state: State
) -> None:
    monkeypatch.setattr(discarder, "RETRY_DELAY", 0)
    async with discarding() as (now, made):
        await now.running(await now.send())
        first, records, asked = await now.send(), now.storage.records, list[int]()
        waiting = records.waiting

        async def fail_once(selection: Selection, after: Place, limit: int) -> Scan:
            asked.append(selection.function_id)
            if asked == [1]:
                raise error
            return await waiting(selection, after, limit)

        monkeypatch.setattr(records, "waiting", fail_once)
        made.discard(1)
        made.discard(2)
        await until(lambda: 2 in asked)
        now.gate.set()

        assert states(now, [first]) == {state}
