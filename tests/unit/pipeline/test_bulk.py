"""Cancellation and redrive of many invocations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import msgspec
import pytest

from engine.code.store import CodeSource
from engine.errors import BacklogFull, InvalidField, NotStored, PageDamaged
from engine.functions.catalog import Catalog
from engine.model import Code, Invocation, Request, State
from engine.model.clock import SystemClock
from engine.model.retry import RetryPolicy
from engine.model.urn import FunctionUrn, parse_urn
from engine.pipeline import discarder
from engine.pipeline.discarder import Discarder
from engine.pipeline.redrive import Chosen, Edit, Step
from engine.protocols import FIRST, Place, Scan, Selection
from tests.support.http_app import PROJECT, REGION, encoded
from tests.support.triggering import HELD, House, house
from tests.support.waiting import in_own_task, until
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


BAD = parse_urn("bad", region=REGION, project=PROJECT)


async def create(place: House) -> None:
    """Create a function ``bad`` that always fails."""
    hello = place.engine.catalog.route(place.urn)
    bad = msgspec.structs.replace(hello, function_id=0, name="bad")
    await place.engine.catalog.create(
        bad, CodeSource(kind="inline", file=encoded("def handler(event, context):\n    raise ValueError(event)\n"))
    )
    place.engine.scheduler.resume(HELD)


async def failed(place: House, urn: FunctionUrn = BAD) -> str:
    request_id = await place.engine.intake.accept(Request(function=urn, payload=b"1"))
    await ended(place, request_id)
    return request_id


async def ended(place: House, request_id: str) -> None:
    await place.engine.dispatcher.ended(key_of(place, request_id), None)


def key_of(place: House, request_id: str) -> int:
    key = place.engine.storage.identity.key_of(request_id)
    assert key is not None
    return key


async def step(place: House, below: int | None = None) -> Step:
    return await place.engine.redrive.invoke_failed(BAD, Chosen(), below=below, limit=10)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[House]:
    async with in_own_task(house(tmp_path)) as place:
        yield place


async def test_a_step_sends_what_there_is_room_for_and_the_next_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path, queue__function_rows=1) as place:
        await create(place)
        old, new = [await failed(place) for _ in range(2)]
        place.engine.scheduler.hold(HELD)
        first = await step(place)
        with pytest.raises(BacklogFull):
            await step(place, first.below)
        place.engine.scheduler.resume(HELD)
        await ended(place, first.sent[0][1])
        rest = await step(place, first.below)

        assert ([sent for sent, _ in first.sent], first.below, first.count) == ([new], key_of(place, new), 2)
        assert ([sent for sent, _ in rest.sent], rest.below, rest.count) == ([old], None, 1)


async def test_an_outcome_that_can_never_be_sent_again_is_reported_and_skipped(place: House) -> None:
    await create(place)
    old = await failed(place)
    frozen = msgspec.structs.replace(BAD, qualifier="v1")
    await place.engine.versions.publish(BAD, name="v1")
    lost = await failed(place, frozen)
    await place.engine.versions.delete(frozen)
    done = await step(place)

    assert [request_id for request_id, _ in done.sent] == [old]
    assert [(request_id, "v1" in why) for request_id, why in done.refused] == [(lost, True)]


async def test_a_filter_selects_what_is_sent_again(place: House) -> None:
    await create(place)
    old = await failed(place)
    place.engine.scheduler.hold(HELD)
    waiting = await place.engine.intake.accept(Request(function=BAD, payload=b"2"))
    await place.engine.dispatcher.cancel(key_of(place, waiting))

    async def sent(**fields: Any) -> list[str]:
        done = await place.engine.redrive.invoke_failed(BAD, Chosen(**fields), below=None, limit=10, counted=False)
        assert (done.count, done.below) == (None, None)
        return [request_id for request_id, _ in done.sent]

    assert await sent(codes=frozenset({Code.TIMEOUT})) == []
    assert await sent(source="TIMER") == []
    assert await sent(trigger_id="t") == []
    assert await sent(states=frozenset({State.DISCARD})) == []
    assert await sent(codes=frozenset({Code.USER_EXCEPTION}), source="API") == [old]
    assert await sent(codes=frozenset({Code.CANCELLED})) == [waiting]


async def test_uncounted_steps_reach_the_end(place: House) -> None:
    await create(place)
    ids = [await failed(place) for _ in range(3)]
    place.engine.scheduler.hold(HELD)
    redrive, sent = place.engine.redrive, list[str]()
    first = await redrive.invoke_failed(BAD, Chosen(), below=None, limit=2, counted=False)
    rest = await redrive.invoke_failed(BAD, Chosen(), below=first.below, limit=2, counted=False)
    sent = [request_id for request_id, _ in [*first.sent, *rest.sent]]

    assert (sent, rest.below) == (ids[::-1], None)


async def test_an_edited_event_is_a_new_invocation(place: House) -> None:
    await create(place)
    old = await failed(place)
    place.engine.scheduler.hold(HELD)
    redrive, records = place.engine.redrive, place.engine.storage.records
    same = await redrive.run_again(BAD, old, Edit())
    other = await redrive.run_again(BAD, old, Edit(payload=b'{"n":2}', priority=0, delay=600.0))
    stored = [await records.get(key_of(place, request_id)) for request_id in (same, other)]

    assert [(record.payload, record.source, record.state, record.cause) for record in stored if record] == [
        (b"1", "REDRIVE", State.WAIT, key_of(place, old)),
        (b'{"n":2}', "REDRIVE", State.WAIT, key_of(place, old)),
    ]
    assert stored[1] is not None
    assert stored[1].due_at > stored[1].accepted_at + 500
    assert await redrive.run_again(BAD, old, Edit()) not in (old, same, other)
    with pytest.raises(InvalidField, match="is WAIT"):
        await redrive.run_again(BAD, same, Edit())


async def test_an_idempotency_key_runs_again_once(place: House) -> None:
    await create(place)
    old = await failed(place)
    edit = Edit(payload=b"3", idempotency_key="mine")

    assert await place.engine.redrive.run_again(BAD, old, edit) == await place.engine.redrive.run_again(BAD, old, edit)
