"""Expiry of the invocations of a paused function, by a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from engine.functions.catalog import Catalog
from engine.model import AsyncSettings, Code, Function, Invocation, State
from engine.model.retry import RetryPolicy
from engine.pipeline.discarder import REST, Discarder
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.settling import DispatchOptions
from engine.scheduling.backlog import Backlog
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import InlineExecutor, ManualClock, MemoryStorage
from tests.support.storages import SINK, made
from tests.support.waiting import in_own_task, until
from tests.unit.pipeline.test_dispatcher import LIMITS, Functions, ends_of

AGE = 100  #: seconds


class Ageing(Functions):
    """Functions of one version each, whose invocations have a maximum age."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = AsyncSettings(max_age=AGE, on_failure=SINK)

    def versions(self, function_id: int) -> Sequence[Function]:
        return [self.known[function_id]]


class House:
    """Discarder of invocations, and a dispatcher that does not run."""

    def __init__(self) -> None:
        self.storage, self.functions, self.clock = MemoryStorage(), Ageing(), ManualClock(check=0.01)
        self.backlog, self.told = Backlog(LIMITS), list[int]()
        queue = RunQueue(slots=1, sync_slots=0, memory=1000)
        self.scheduler = Scheduler(queue, self.storage.window, self.clock)
        policy, catalog, ends = RetryPolicy(), cast("Catalog", self.functions), ends_of(self.storage)
        self.dispatcher = Dispatcher(
            scheduler=self.scheduler,
            storage=self.storage,
            executor=InlineExecutor({}),
            catalog=catalog,
            backlog=self.backlog,
            clock=self.clock,
            ends=ends,
            options=DispatchOptions(slots=1, priority_step=60.0, retry=policy),
        )
        self.discarder = Discarder(
            scheduler=self.scheduler,
            storage=self.storage,
            cancellation=self.dispatcher.cancellation,
            catalog=catalog,
            policy=policy,
            clock=self.clock,
        )
        self.storage.journal.released.connect(self.scheduler.note_release)
        self.scheduler.kept_out.connect(self.discarder.note_push)
        ends.waiting_ended.connect(lambda function_id, end, rows: self.told.append(rows))

    async def send(self, function_id: int = 1, *, ago: float = 0.0, **fields: Any) -> Invocation:
        """Store an invocation that has been due for so many seconds."""
        at = self.clock.now() - ago
        invocation = made(self.storage, function_id, at=at, **fields)
        self.backlog.add(function_id, len(invocation.payload))
        await self.storage.journal.append(invocation)
        self.scheduler.push(invocation)
        return invocation

    def pause(self) -> None:
        if self.scheduler.set_pause(1, ""):
            self.discarder.note_pause(1)

    def states(self, *invocations: Invocation) -> list[State]:
        return [self.storage.rows[invocation.key].state for invocation in invocations]

    async def turns(self) -> None:
        """Let the clock notice a step, and all tasks do what they can."""
        await asyncio.sleep(0.05)


@asynccontextmanager
async def expiring() -> AsyncIterator[House]:
    house = House()
    async with anyio.create_task_group() as tasks:
        await tasks.start(house.scheduler.run)
        await tasks.start(house.discarder.run)
        with anyio.fail_after(20):
            yield house
        tasks.cancel_scope.cancel()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with in_own_task(expiring()) as house:
        yield house


async def test_old_invocations_end_at_the_pause_and_young_ones_wait(house: House) -> None:
    old, young = await house.send(ago=AGE + 1), await house.send(ago=AGE - 50)
    house.pause()
    await until(lambda: bool(house.told))

    assert house.states(old, young) == [State.DISCARD, State.WAIT]
    row = house.storage.rows[old.key]
    assert (row.code, row.started_at) == (Code.EXPIRED, None)
    assert (house.backlog.rows, house.dispatcher.statistics().outcomes["DISCARD"]) == (1, 1)
    assert [delivery.key for delivery in house.storage.deliveries.values()] == [old.key]


async def test_the_clock_wakes_the_expiry_of_what_is_pushed_during_the_pause(house: House) -> None:
    house.pause()
    await house.turns()
    invocation = await house.send()
    await house.turns()
    assert house.clock.alarms.count == 1
    house.clock.advance(AGE - 1)
    await house.turns()
    assert house.states(invocation) == [State.WAIT]

    house.clock.advance(1 + REST)
    await until(lambda: house.states(invocation) == [State.DISCARD])
    await house.turns()
    assert house.clock.alarms.count == 0  # nothing is left that could grow too old


async def test_a_backlog_of_several_pages_ends_and_another_function_is_left_alone(house: House) -> None:
    house.pause()
    old = [await house.send(ago=AGE + 500 - number) for number in range(450)]
    young, other = await house.send(), await house.send(2, ago=AGE + 1)
    house.clock.advance(2 * REST)
    await until(lambda: set(house.states(*old)) == {State.DISCARD})

    assert house.states(young, other) == [State.WAIT, State.WAIT]
    assert sum(house.told) == 450


async def test_a_priority_does_not_hide_the_age_of_others(house: House) -> None:
    ahead = await house.send(ago=AGE - 10, rank=house.clock.now() - 900, priority=9)
    old = await house.send(ago=AGE + 1)
    house.pause()
    await until(lambda: bool(house.told))

    assert house.states(ahead, old) == [State.WAIT, State.DISCARD]


async def test_a_successor_that_is_released_during_the_pause_ends_when_it_is_too_old_itself(house: House) -> None:
    keyed = [await house.send(ago=AGE - 1 - number, ordering_key="k") for number in (0, 1)]
    young = await house.send()
    house.pause()
    await house.turns()
    house.clock.advance(2 + REST)
    await until(lambda: house.states(keyed[0]) == [State.DISCARD])
    await house.turns()
    house.clock.advance(2 * REST)

    await until(lambda: house.states(*keyed) == [State.DISCARD, State.DISCARD])
    assert house.states(young) == [State.WAIT]


async def test_without_a_maximum_age_nothing_ends_and_no_alarm_is_set(house: House) -> None:
    house.functions.settings = None
    invocation = await house.send(ago=1e6)
    house.pause()
    await house.send()
    await house.turns()

    assert (house.states(invocation), house.clock.alarms.count) == ([State.WAIT], 0)


async def test_after_the_end_of_the_pause_slots_find_what_is_too_old(house: House) -> None:
    house.pause()
    invocation = await house.send()
    await house.turns()
    house.scheduler.set_pause(1, None)
    house.clock.advance(AGE + REST)
    await house.turns()

    assert (house.states(invocation), house.told, house.clock.alarms.count) == ([State.WAIT], [], 0)


async def test_while_the_clock_is_in_doubt_nothing_ends(house: House) -> None:
    house.clock.expiry.watch(30 * 86_400.0)
    house.pause()
    invocation = await house.send()
    house.clock.advance(60 * 86_400.0)
    await house.turns()

    assert house.states(invocation) == [State.WAIT]


async def test_a_refused_write_is_tried_again(house: House) -> None:
    invocation = await house.send(ago=AGE + 1)
    house.storage.fail()
    house.pause()
    await house.turns()
    assert house.states(invocation) == [State.WAIT]
    house.storage.heal()
    house.clock.advance(2 * REST)

    await until(lambda: house.states(invocation) == [State.DISCARD])
