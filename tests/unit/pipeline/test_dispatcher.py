from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import pytest

from engine.errors import Deferred, NotStored, OutcomeUnknown
from engine.functions.catalog import Catalog
from engine.maintenance.pruner import Pruner
from engine.model import AsyncSettings, Begin, Code, Function, Invocation, Mode, Outcome, State
from engine.model.clock import Clock, SystemClock
from engine.model.retry import RetryPolicy
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.settling import DispatchOptions, Ends
from engine.protocols import WaitingEnd
from engine.scheduling.backlog import Backlog, Limits
from engine.scheduling.function_queue import Entry
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from tests.doubles import InlineContext, InlineExecutor, ManualClock, MemoryStorage
from tests.support.executing import function
from tests.support.storages import record_of
from tests.support.waiting import until

MANY = 1 << 40
LIMITS = Limits(rows=MANY, size=MANY, function_rows=MANY, function_size=MANY, sync_rows=MANY, sync_size=MANY)


class Functions:
    """Part of the catalog that a dispatcher uses."""

    def __init__(self) -> None:
        self.known: dict[int, Function] = {1: function("job", function_id=1), 2: function("other", function_id=2)}
        self.settings: AsyncSettings | None = None

    def resolve(self, function_id: int, version: str) -> Function | None:
        return self.known.get(function_id)

    def settings_of(self, function_id: int, version: str) -> AsyncSettings | None:
        return self.settings


class Dispatching:
    """Dispatcher between the real scheduler and doubles. ``job`` runs until ``gate`` is set."""

    def __init__(self, *, slots: int = 1, clock: Clock | None = None) -> None:
        self.gate, self.storage, self.functions = asyncio.Event(), MemoryStorage(), Functions()
        self.backlog, self.announced = Backlog(LIMITS), ends_of(self.storage)
        self.executor = InlineExecutor({"job": self._job, "other": lambda event, context: event})
        queue = RunQueue(slots=slots, sync_slots=0, memory=10_000)
        self.scheduler = Scheduler(queue, self.storage.window, SystemClock())
        self.dispatcher = Dispatcher(
            scheduler=self.scheduler,
            storage=self.storage,
            executor=self.executor,
            catalog=cast("Catalog", self.functions),
            backlog=self.backlog,
            clock=clock or SystemClock(),
            ends=self.announced,
            options=DispatchOptions(slots=slots, priority_step=60.0, retry=RetryPolicy(base=0.01)),
        )

    async def _job(self, event: Any, context: InlineContext) -> None:
        await self.gate.wait()

    def push(self, function_id: int = 1) -> Invocation:
        """Push an invocation. If a slot is free, the invocation is on its way to it when this returns."""
        invocation = self.made(function_id)
        self.storage.journal.append(invocation)
        self.scheduler.push(invocation)
        return invocation

    async def send(self, function_id: int = 1, **fields: Any) -> Invocation:
        invocation = self.made(function_id, **fields)
        await self.storage.journal.append(invocation, then=lambda i, _: self.scheduler.push(i))
        return invocation

    def made(self, function_id: int = 1, **fields: Any) -> Invocation:
        now = SystemClock().now()
        key = self.storage.identity.next_key(now)
        fields = {"due_at": now, "first_due_at": now, "rank": now, "payload": b"{}", **fields}
        request_id = self.storage.identity.request_id(key)
        invocation = Invocation(key=key, request_id=request_id, function_id=function_id, **fields)
        self.backlog.add(function_id, len(invocation.payload))
        return invocation

    async def running(self, invocation: Invocation) -> None:
        await until(lambda: invocation.key in self.executor.running)

    async def end_of(self, invocation: Invocation) -> State:
        await self.dispatcher.ended(invocation.key, 10)
        record = await record_of(self.storage, invocation)
        return record.state


class Followers:
    """Pruner and delivery worker that nobody runs."""

    def note_end(self) -> None: ...

    def wake(self) -> None: ...


def ends_of(storage: MemoryStorage) -> Ends:
    return Ends(storage.records, cast("Pruner", Followers()), cast("DeliveryWorker", Followers()))


@asynccontextmanager
async def dispatching(*, slots: int = 1, clock: Clock | None = None) -> AsyncIterator[Dispatching]:
    now = Dispatching(slots=slots, clock=clock)
    async with anyio.create_task_group() as tasks:
        await tasks.start(now.scheduler.run)
        await tasks.start(now.dispatcher.run)
        with anyio.fail_after(60):
            yield now
        tasks.cancel_scope.cancel()


def doubt(clock: ManualClock, noticed: bool) -> None:
    """Make a later step of the clock one in doubt: already noticed, or by the first component that asks for the age."""
    if noticed:
        clock.expiry.hold(clock.now())
    else:
        clock.expiry.watch(30 * 86_400.0)


def refuse_cancels(storage: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cancels fail like those of a journal whose commit fails."""

    def refuse(keys: list[int], end: WaitingEnd, *, then: Callable[..., None]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(then, (), False)
        asyncio.get_running_loop().call_soon(future.set_exception, NotStored("disk full"))
        return future

    monkeypatch.setattr(storage.journal, "end_all", refuse)


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_a_cancel_that_the_disk_refuses_leaves_the_invocation_in_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with dispatching() as now:
        await now.running(await now.send())
        waiting = await now.send(2)
        refuse_cancels(now.storage, monkeypatch)
        with pytest.raises(NotStored):
            await now.dispatcher.cancel(waiting.key)
        now.gate.set()

        assert await now.end_of(waiting) is State.SUCCESS


async def test_an_invocation_that_became_due_during_a_refused_cancel_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    async with dispatching() as now:
        waiting = await now.send(2, delayed=True, due_at=SystemClock().now() + 0.02)
        refuse_cancels(now.storage, monkeypatch)
        now.scheduler.withhold(2, waiting.key)
        await until(lambda: now.storage.rows[waiting.key].ready)
        await asyncio.sleep(0)
        now.scheduler.reinstate(waiting.key, ended=False)

        assert await now.end_of(waiting) is State.SUCCESS


async def test_a_cancel_is_counted_once_also_if_its_caller_went_away() -> None:
    async with dispatching() as now:
        await now.running(await now.send())
        waiting = await now.send(2)
        caller = asyncio.ensure_future(now.dispatcher.cancel(waiting.key))
        await until(lambda: now.storage.rows[waiting.key].state is State.FAIL)
        caller.cancel()
        await asyncio.wait([caller])

        assert await now.end_of(waiting) is State.FAIL
        assert now.backlog.of(2) == (0, 0)
        assert now.dispatcher.statistics().outcomes["FAIL"] == 1


@pytest.mark.parametrize("turns", range(12))
async def test_an_invocation_ends_once_whenever_it_is_cancelled(turns: int) -> None:
    async with dispatching() as now:
        first = await now.send()
        await now.running(first)
        waiting = await now.send()
        now.gate.set()
        for _ in range(turns):  # the invocation gets its slot in one of these turns
            await asyncio.sleep(0)
        now.gate.clear()
        known = await now.dispatcher.cancel(waiting.key)
        now.gate.set()

        state = await now.end_of(waiting)
        assert state is (State.FAIL if known else State.SUCCESS)
        await until(lambda: now.backlog.of(1) == (0, 0))
        assert sum(now.dispatcher.statistics().outcomes.values()) == 2


async def test_an_invocation_on_its_way_to_a_slot_is_cancelled_as_running() -> None:
    async with dispatching() as now:
        pushed = now.push()

        assert await now.dispatcher.cancel(pushed.key)
        assert await now.end_of(pushed) is State.FAIL
        assert now.executor.done == [pushed]


async def test_a_run_whose_cancel_is_confirmed_has_its_end_on_disk() -> None:
    async with dispatching() as now:
        sent = await now.send()
        await now.running(sent)
        assert await now.dispatcher.cancel(sent.key)
        record = await record_of(now.storage, sent)

        assert (record.state, record.code) == (State.FAIL, Code.CANCELLED)


async def test_a_cancel_is_not_confirmed_while_the_end_of_the_run_is_not_on_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with dispatching() as now:
        sent = await now.send()
        await now.running(sent)
        monkeypatch.setattr(now.storage.journal, "settle", lambda settlement, *, then: None)
        monkeypatch.setattr("engine.pipeline.cancellation.CANCEL_TIMEOUT", 0.01)
        with pytest.raises(OutcomeUnknown):
            await now.dispatcher.cancel(sent.key)


async def test_a_run_that_fails_as_it_is_cancelled_is_not_tried_again_and_counts_as_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with dispatching() as now:

        async def fail(function: Function, invocation: Invocation, begin: Begin) -> Outcome:
            await now.gate.wait()
            return Outcome(code=Code.USER_EXCEPTION, message="no")

        now.functions.settings = AsyncSettings(max_retries=3, max_age=1 << 40)
        monkeypatch.setattr(now.executor, "execute", fail)
        pushed = now.push()
        cancelling = asyncio.ensure_future(now.dispatcher.cancel(pushed.key))
        await until(lambda: now.dispatcher.statistics().started == 1)
        await asyncio.sleep(0)
        now.gate.set()

        assert await cancelling
        assert await now.end_of(pushed) is State.FAIL


# --- stopping -----------------------------------------------------------------------------------------------


async def test_a_cancel_waits_for_an_invocation_on_its_way_to_a_slot() -> None:
    async with dispatching() as now:
        pushed = now.push()
        asyncio.get_running_loop().call_later(0.01, now.gate.set)
        await now.dispatcher.drain()

        assert now.executor.done == [pushed]


async def test_a_caller_does_not_wait_for_an_invocation_whose_slot_was_cancelled() -> None:
    async with dispatching() as now:
        sent = await now.send()
        async with anyio.create_task_group() as others:
            await others.start(now.dispatcher.run)
            await now.running(sent)
            others.cancel_scope.cancel()
        two = await now.send()
        await until(lambda: sent.key in now.executor.running or two.key in now.executor.running)
        now.gate.set()

        await now.dispatcher.drain()


# --- ends ---------------------------------------------------------------------------------------------------


async def test_a_poisoned_invocation_fails_and_is_not_tried_again() -> None:
    async with dispatching() as now:
        now.functions.settings = AsyncSettings(max_retries=3)
        invocation = await now.send(crash_count=3, delayed=True, due_at=SystemClock().now() + 1000)
        now.storage.journal.start(invocation, 0.0)
        now.dispatcher.fail_poisoned((invocation,))

        assert await now.end_of(invocation) is State.FAIL
        record = await record_of(now.storage, invocation)
        assert (record.code, record.attempt) == (Code.ENGINE, 1)
        assert record.message == "the engine crashed 3 times while this invocation was running"


async def test_the_message_of_a_poisoned_invocation_counts_crashes_before_its_handler_began() -> None:
    async with dispatching() as now:
        invocation = await now.send(start_crashes=10, delayed=True, due_at=SystemClock().now() + 1000)
        now.storage.journal.start(invocation, 0.0)
        now.dispatcher.fail_poisoned((invocation,))
        await now.end_of(invocation)

        record = await record_of(now.storage, invocation)
        assert record.message.endswith("and 10 times before its handler began")


@pytest.mark.parametrize("noticed", [True, False])
async def test_an_invocation_too_old_by_a_doubtful_clock_waits_until_the_clock_is_trusted(noticed: bool) -> None:
    clock = ManualClock(SystemClock().now())
    async with dispatching(clock=clock) as now:
        now.functions.settings = AsyncSettings(max_age=3600)
        now.gate.set()
        old = now.made()
        doubt(clock, noticed)
        clock.advance(1e9)
        await now.storage.journal.append(old, then=lambda invocation, _: now.scheduler.push(invocation))
        fresh = await now.send(2, first_due_at=clock.now())
        assert await now.end_of(fresh) is State.SUCCESS
        assert now.storage.rows[old.key].state is State.WAIT
        clock.expiry.release()
        now.scheduler.unpark()

        assert await now.end_of(old) is State.DISCARD


@pytest.mark.parametrize("noticed", [True, False])
async def test_a_failed_attempt_is_retried_although_it_is_too_old_by_a_clock_in_doubt(
    monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    clock = ManualClock(SystemClock().now())
    async with dispatching(clock=clock) as now:
        now.functions.settings = AsyncSettings(max_age=3600, max_retries=1)
        doubt(clock, noticed)

        async def fail(function: Function, invocation: Invocation, begin: Begin) -> Outcome:
            clock.advance(1e9)
            return Outcome(code=Code.USER_EXCEPTION, message="no", ended_at=clock.now())

        monkeypatch.setattr(now.executor, "execute", fail)
        sent = await now.send()
        await until(lambda: now.dispatcher.statistics().retries == 1)

        assert now.storage.rows[sent.key].state is State.WAIT


async def test_an_executor_that_raises_fails_one_attempt_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(function: Function, invocation: Invocation, begin: Begin) -> Outcome:
        if len(invocation.payload) > 2:
            raise RuntimeError("a fault of ours")
        return Outcome()

    async with dispatching() as now:
        monkeypatch.setattr(now.executor, "execute", broken)
        now.functions.settings = AsyncSettings(max_age=0)
        bad, good = (
            await now.send(payload=b"bad", first_due_at=SystemClock().now() + 60),
            await now.send(first_due_at=SystemClock().now() + 60),
        )

        assert await now.end_of(good) is State.SUCCESS
        await until(lambda: bool(now.storage.rows[bad.key].code))
        assert now.storage.rows[bad.key].code == Code.ENGINE


async def test_an_invocation_of_an_earlier_version_of_that_name_is_discarded() -> None:
    async with dispatching() as it:
        invocation = it.made(version="v1")
        await it.storage.journal.append(invocation)
        it.functions.known[1] = function("job", function_id=1, version="v1", created_key=invocation.key + 1)
        it.scheduler.push(invocation)

        assert await it.end_of(invocation) is State.DISCARD


async def test_a_clock_that_is_set_during_a_run_does_not_change_what_its_function_is_charged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    async with dispatching(clock=clock) as now:
        charged: list[float] = []
        exchange = now.scheduler.exchange

        def noted(entry: Entry, seconds: float) -> Any:
            charged.append(seconds)
            return exchange(entry, seconds)

        monkeypatch.setattr(now.scheduler, "exchange", noted)
        for step in (1e9, -2e9):
            sent = await now.send()
            await now.running(sent)
            clock.advance(step)
            now.gate.set()
            await now.end_of(sent)
            now.gate.clear()

        assert all(0 < seconds < 60 for seconds in charged)
        assert len(charged) == 2


async def test_the_tenth_loss_of_a_node_fails_the_invocation_and_its_history_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = 0

    async def lose(function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        nonlocal losses
        losses += 1
        return Outcome(code=Code.ENGINE, message="lost", losses=losses, ended_at=SystemClock().now())

    async with dispatching() as now:
        monkeypatch.setattr(now.executor, "execute", lose)
        sent = await now.send()

        assert (await now.end_of(sent), losses) == (State.FAIL, 10)
        record = await record_of(now.storage, sent)
    decision = record.attempts[-1].decision
    assert decision is not None
    assert decision.text == "no retry: its node was lost 10 times; redrive the invocation to run it again"


# --- attempts that return to the queue -----------------------------------------------------------------------


class Scarce:
    """Executor that defers each attempt as long as ``full``."""

    def __init__(self, now: Dispatching, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.full, self.deferred, self.room = now, True, 0, asyncio.Event()
        self._execute = now.executor.execute
        monkeypatch.setattr(now.executor, "execute", self.execute)

    async def execute(self, function: Function, invocation: Invocation, begin: Begin | None = None) -> Outcome:
        if not self.full:
            return await self._execute(function, invocation, begin)
        await self.room.wait()
        self.deferred += 1
        self.now.scheduler.set_places(function.function_id, invocation.kind, 0)
        raise Deferred

    def defer(self) -> None:
        self.room.set()

    def empty(self) -> None:
        self.full = False
        self.now.scheduler.set_places(2, ("latest", 0), -1)


@asynccontextmanager
async def scarce(monkeypatch: pytest.MonkeyPatch, slots: int = 1) -> AsyncIterator[tuple[Dispatching, Scarce]]:
    async with dispatching(slots=slots) as now:
        for function_id in now.functions.known:
            now.scheduler.configure(function_id, weight=1.0, limit=-1, memory=1)
        yield now, Scarce(now, monkeypatch)


async def test_a_deferred_attempt_leaves_its_invocation_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scarce(monkeypatch) as (now, nodes):
        nodes.defer()
        sent = [await now.send(2) for _ in range(3)]
        await until(lambda: nodes.deferred == 1 and not now.dispatcher.is_running())
        records = [await now.storage.records.get(each.key) for each in sent]

        assert [record and (record.state, record.attempts) for record in records] == [(State.WAIT, ())] * 3
        assert (now.scheduler.statistics().running, now.scheduler.statistics().memory) == (0, 0)
        assert (now.dispatcher.statistics().codes, now.scheduler.possible_work()) == ({}, None)

        nodes.empty()
        assert [await now.end_of(each) for each in sent] == [State.SUCCESS] * 3
        assert sorted(done.key for done in now.executor.done) == [each.key for each in sent]
        assert now.backlog.of(2) == (0, 0)


@pytest.mark.parametrize("turns", range(12))
async def test_a_deferred_invocation_is_cancelled_once_at_any_moment(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scarce(monkeypatch) as (now, nodes):
        sent = await now.send(2)
        await until(now.dispatcher.is_running)
        nodes.defer()
        for _ in range(turns):
            await asyncio.sleep(0)

        assert await now.dispatcher.cancel(sent.key)
        nodes.empty()
        assert await now.end_of(sent) is State.FAIL
        other = await now.send(2)
        assert await now.end_of(other) is State.SUCCESS
        assert [done.key for done in now.executor.done] == [other.key]
        assert now.backlog.of(2) == (0, 0)
        assert now.dispatcher.statistics().outcomes["FAIL"] == 1


@pytest.mark.parametrize("turns", range(8))
async def test_a_deferred_invocation_of_a_paused_function_waits_on_disk(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scarce(monkeypatch) as (now, nodes):
        sent = await now.send(2)
        await until(now.dispatcher.is_running)
        nodes.defer()
        for _ in range(turns):
            await asyncio.sleep(0)
        now.scheduler.set_pause(2, "")
        await until(lambda: not now.dispatcher.is_running())
        nodes.empty()
        await asyncio.sleep(0)
        assert now.storage.rows[sent.key].state is State.WAIT

        now.scheduler.set_pause(2, None)
        assert await now.end_of(sent) is State.SUCCESS
        assert len(now.executor.done) == 1


@pytest.mark.parametrize("turns", range(8))
async def test_a_deferred_invocation_of_a_deleted_function_is_left_to_the_disk(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept_out: list[int] = []
    async with scarce(monkeypatch) as (now, nodes):
        now.scheduler.kept_out.connect(lambda invocation: kept_out.append(invocation.key))
        sent = await now.send(2)
        await until(now.dispatcher.is_running)
        nodes.defer()
        closed = False
        for turn in range(50):
            if turn == turns:
                closed = True
                now.scheduler.close(2)
            await asyncio.sleep(0)
        await until(lambda: not now.dispatcher.is_running())
        nodes.empty()

        assert closed
        assert now.storage.rows[sent.key].state is State.WAIT
        assert kept_out in ([], [sent.key])  # the end of those that wait is the discarder's, which reads the disk


async def test_a_page_from_disk_does_not_start_a_deferred_invocation_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scarce(monkeypatch, slots=2) as (now, nodes):
        release = now.storage.journal.release

        async def slowly(invocations: list[Invocation]) -> None:
            await release(invocations)
            now.scheduler.set_pause(2, "")
            now.scheduler.set_pause(2, None)  # has the rows read again
            nodes.empty()
            for _ in range(20):
                await asyncio.sleep(0)

        monkeypatch.setattr(now.storage.journal, "release", slowly)
        nodes.defer()
        sent = await now.send(2)

        assert await now.end_of(sent) is State.SUCCESS
        await until(lambda: not now.dispatcher.is_running())
        assert [done.key for done in now.executor.done] == [sent.key]


async def test_a_deferred_invocation_returns_to_the_queue_when_the_disk_works_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.pipeline.dispatcher.RETRY_DELAY", 0.01)
    async with scarce(monkeypatch) as (now, nodes):
        release, failures = now.storage.journal.release, [NotStored("disk full"), OutcomeUnknown("disk failed")]

        async def refuse(invocations: list[Invocation]) -> None:
            if failures:
                raise failures.pop()
            nodes.empty()
            await release(invocations)

        monkeypatch.setattr(now.storage.journal, "release", refuse)
        nodes.defer()
        sent = await now.send(2)

        assert await now.end_of(sent) is State.SUCCESS
        record = await record_of(now.storage, sent)
    assert (failures, record.attempts) == ([], ())


async def test_a_deferred_synchronous_call_waits_for_its_answer_or_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scarce(monkeypatch) as (now, nodes):
        nodes.defer()
        calls = [now.made(2, mode=Mode.SYNC) for _ in range(2)]
        replies: list[asyncio.Future[Outcome]] = [asyncio.get_running_loop().create_future() for _ in calls]
        for call, reply in zip(calls, replies, strict=True):
            now.scheduler.push(call, reply)
        await until(lambda: nodes.deferred == 1 and not now.dispatcher.is_running())
        assert now.scheduler.withdraw(2, calls[0].key)
        nodes.empty()

        assert (await replies[1]).ok
        assert not replies[0].done()
