"""Cancellation of many invocations, between a real scheduler and dispatcher and a storage in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from engine.errors import NotStored
from engine.model import Code, Invocation, State
from engine.model.clock import SystemClock
from engine.protocols import FIRST, Place, Selection
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
        now.announced.waiting_ended.connect(lambda one, end, rows: told.append((one, end.state, rows)))

        keys = await cancelled(now, limit=150)
        now.gate.set()

        assert sorted(keys) == sorted(one.key for one in [*waiting, delayed])
        assert states(now, [*waiting, delayed]) == {State.FAIL}
        assert await now.end_of(running) is State.SUCCESS
        assert await now.end_of(other) is State.SUCCESS
        assert told == [(1, State.FAIL, rows) for rows in (100, 50, 91)]
        assert now.dispatcher.statistics().codes[Code.CANCELLED] == 241
        assert (now.backlog.rows, now.backlog.size) == (0, 0)


async def test_running_invocations_are_cancelled_on_demand() -> None:
    async with dispatching(slots=2) as now:
        running = [await now.send(), await now.send()]
        for one in running:
            await now.running(one)
        waiting = await now.send()

        assert sorted(await cancelled(now, states=BOTH)) == sorted(one.key for one in [*running, waiting])
        assert [await now.end_of(one) for one in [*running, waiting]] == [State.FAIL] * 3


async def test_more_running_ones_than_one_step_ends_are_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.pipeline.cancellation.MOST_RUNNING", 2)
    async with dispatching(slots=5) as now:
        running = [await now.send() for _ in range(5)]
        for one in running:
            await now.running(one)

        assert sorted(await cancelled(now, states=BOTH)) == sorted(one.key for one in running)


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

        assert {await now.end_of(one) for one in waiting} == {State.SUCCESS}


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

        ends = [await now.end_of(one) for one in waiting]
        assert [one.key for one, end in zip(waiting, ends, strict=True) if end is State.FAIL] == sorted(keys)
        await until(lambda: sum(now.dispatcher.statistics().outcomes.values()) == 4)  # a turn after the end is stored
        assert (now.dispatcher.statistics().outcomes["FAIL"], now.backlog.rows) == (len(keys), 0)
