"""Contract of storages as a whole: order, callbacks, failures and end, which all parts share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import pytest

from engine.errors import JournalBroken, NotStored, OutcomeUnknown, ShuttingDown
from engine.model import PendingDelivery, State
from engine.model.identity import SLOT_BITS
from engine.protocols import Settlement, Storage, StoredResource
from engine.scheduling.function_queue import BEGINNING
from tests.contracts.test_stores import FUNCTION
from tests.support.storages import (
    CANCELLED,
    NOW,
    ROOM,
    SINK,
    Opened,
    ended,
    made,
    record_of,
    settled,
    started,
    stored,
    success,
)
from tests.support.waiting import until

RESOURCE = StoredResource(kind="event", owner="function:1", id="a", body=b"{}")
PENDING = PendingDelivery(delivery_id=1, key=1, function_id=1, condition="success", destination=SINK, due_at=NOW)
REFUSED = (NotStored, OutcomeUnknown)

#: One write of each part, besides those of the journal that never raise. A kind may read while its writes fail.
WRITES: dict[str, Callable[[Storage], Awaitable[object]]] = {
    "append": lambda storage: storage.journal.append(made(storage)),
    "append once": lambda storage: storage.journal.append(made(storage), idempotency_key="key"),
    "end all": lambda storage: storage.journal.end_all([1], CANCELLED),
    "release": lambda storage: storage.journal.release([]),
    "promote": lambda storage: storage.window.promote(NOW, 10, ROOM),
    "purge": lambda storage: storage.records.purge(NOW, age=1.0, rows=1, size=1),
    "postpone": lambda storage: storage.outbox.postpone(PENDING, None, "no"),
    "catalog": lambda storage: storage.catalog.put_functions([FUNCTION]),
    "resources": lambda storage: storage.resources.put(RESOURCE),
    "cursors": lambda storage: storage.cursors.append([(made(storage), "")]),
    "store": lambda storage: storage.store("dis").write("records", {"a": b"1"}),
}
READS: dict[str, Callable[[Storage], Awaitable[object]]] = {
    "ready": lambda storage: storage.window.ready(1, BEGINNING, 10, ROOM),
    "due": lambda storage: storage.outbox.due(NOW, 10, 10),
    "catalog": lambda storage: storage.catalog.load(),
    "resources": lambda storage: storage.resources.load("event"),
    "cursors": lambda storage: storage.cursors.read("t"),
    "store": lambda storage: storage.store("dis").get("records", "a"),
}


# --- order --------------------------------------------------------------------------------------------------


async def test_when_a_write_is_done_all_earlier_ones_are_done_too(storage: Storage) -> None:
    waiting, running = await stored(storage), await stored(storage)
    appended = [made(storage) for _ in range(20)]
    for invocation in appended:
        storage.journal.append(invocation)
    storage.journal.start(running, NOW)
    storage.journal.settle(Settlement(invocation=running, state=State.SUCCESS, outcome=success(running)))
    storage.journal.end_all([waiting.key], CANCELLED)
    await storage.store("dis").write("records", {"a": b"1"})

    states = [await storage.records.get(invocation.key) for invocation in (waiting, running, *appended)]
    assert [record and record.state for record in states] == [State.FAIL, State.SUCCESS] + [State.WAIT] * 20


async def test_a_read_sees_what_was_submitted_before_it(storage: Storage) -> None:
    one, two = await started(storage), await started(storage)
    for running in (one, two):
        end = Settlement(invocation=running, state=State.SUCCESS, outcome=success(running), deliver_to=SINK)
        storage.journal.settle(end)
        assert [pending.key for pending in await storage.outbox.deliveries_of(running.key)] == [running.key]
    three = await started(storage)
    end = Settlement(invocation=three, state=State.SUCCESS, outcome=success(three), deliver_to=SINK)
    storage.journal.settle(end)
    assert len((await storage.outbox.due(NOW + 10_000, 10, 10))[0]) == 3

    storage.journal.append(waiting := made(storage, 2))
    assert await storage.journal.end_all([waiting.key], CANCELLED) == [(waiting.key, 2)]
    storage.journal.append(waiting := made(storage, 2))
    assert await storage.journal.end_all([waiting.key], CANCELLED) == [(waiting.key, 2)]
    storage.journal.append(delayed := made(storage, 2, delayed=True))
    assert [due.key for due in (await storage.window.promote(delayed.due_at, 10, ROOM))[0]] == [delayed.key]

    written = asyncio.ensure_future(storage.store("dis").write("records", {"a": b"1"}))
    put = asyncio.ensure_future(storage.resources.put(RESOURCE))
    await asyncio.sleep(0)  # both have begun
    assert await storage.store("dis").get("records", "a") == b"1"
    assert await storage.resources.load("event") == [RESOURCE]
    await asyncio.gather(written, put)


async def test_callbacks_come_in_the_order_of_the_calls_and_before_their_callers_continue(storage: Storage) -> None:
    waiting, running = await stored(storage), await started(storage)
    told: list[str] = []
    settlement = Settlement(invocation=running, state=State.SUCCESS, outcome=success(running))
    first = storage.journal.append(made(storage), then=lambda *_: told.append("append"))
    storage.journal.settle(settlement, then=lambda _: told.append("settle"))
    second = storage.journal.end_all([waiting.key], CANCELLED, then=lambda *_: told.append("cancel"))
    last = storage.cursors.append([(made(storage), "")], then=lambda *_: told.append("cursors"))

    async def caller(write: Awaitable[object]) -> list[str]:
        await write
        return list(told)

    seen = await asyncio.gather(caller(first), caller(second), caller(last))

    assert told == ["append", "settle", "cancel", "cursors"]
    assert [list(told[:n]) for n in (1, 3, 4)] == [order[:n] for order, n in zip(seen, (1, 3, 4), strict=True)]


async def test_an_end_that_was_reported_is_there_for_the_next_engine(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage)
        await settled(storage, invocation, success(invocation), deliver_to=SINK)

    async with opened() as storage:
        record = await record_of(storage, invocation)
        assert record.state is State.SUCCESS
        assert [pending.key for pending in await storage.outbox.deliveries_of(invocation.key)] == [invocation.key]


async def test_new_keys_are_larger_than_those_of_all_stored_invocations(opened: Opened) -> None:
    async with opened() as storage:
        ahead = await stored(storage, at=NOW + 10_000)

    async with opened() as storage:
        key = storage.identity.next_key(NOW)
        assert key > ahead.key
        assert storage.identity.key_of(ahead.request_id) == ahead.key
        assert key & 63 == storage.cluster.slot


# --- while writes fail --------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
async def test_while_writes_fail_calls_are_refused_and_then_work_again(
    storage: Storage, opened: Opened, write: str
) -> None:
    await stored(storage)
    opened.fail()

    with pytest.raises(REFUSED):
        await WRITES[write](storage)
    assert storage.statistics().failure
    with pytest.raises(REFUSED):
        await WRITES[write](storage)
    opened.heal()
    await until(lambda: not storage.statistics().failure)
    await WRITES[write](storage)
    assert not storage.broken


async def test_a_refused_delivery_is_still_pending(storage: Storage, opened: Opened) -> None:
    await ended(storage, deliver_to=SINK)
    [pending], _ = await storage.outbox.due(NOW + 10_000, 10, 10)
    opened.fail()
    with pytest.raises(REFUSED):
        await storage.outbox.delivered(pending, append=made(storage, 2))
    opened.heal()
    await until(lambda: not storage.statistics().failure)

    assert (await storage.outbox.due(NOW + 10_000, 10, 10))[0] == [pending]
    assert (await storage.window.ready(2, BEGINNING, 10, ROOM)).invocations == ()


async def test_starts_and_ends_are_kept_while_writes_fail_and_stored_in_their_order(
    storage: Storage, opened: Opened
) -> None:
    one, two = await stored(storage), await stored(storage)
    opened.fail()
    with pytest.raises(REFUSED):
        await storage.journal.append(made(storage))
    told: list[int] = []
    for invocation in (one, two):
        storage.journal.start(invocation, NOW)
        settlement = Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation))
        storage.journal.settle(settlement, then=lambda settlement: told.append(settlement.invocation.key))
    await anyio.sleep(0.01)
    before = list(told)
    opened.heal()
    await until(lambda: len(told) == 2)

    assert (before, told) == ([], [one.key, two.key])
    records = [await storage.records.get(invocation.key) for invocation in (one, two)]
    assert [record and record.state for record in records] == [State.SUCCESS, State.SUCCESS]


async def test_a_write_that_fails_later_calls_back_and_is_not_there(opened: Opened) -> None:
    told: list[object] = []
    async with opened() as storage:
        waiting, refused = await stored(storage), made(storage)
        opened.fail()
        futures: list[Awaitable[object]] = []
        for call in (
            lambda: storage.journal.append(refused, then=lambda _, stored: told.append(stored)),
            lambda: storage.journal.end_all([waiting.key], CANCELLED, then=lambda *ended: told.append(ended)),
            lambda: storage.cursors.append([(made(storage), "")], then=lambda stored, _: told.append(bool(stored))),
        ):
            with suppress(NotStored):  # raised at once if the storage knows already
                futures.append(call())
        expected = [False, ((), False), False] if futures else []
        for future in futures:
            with pytest.raises(REFUSED):
                await future
        opened.heal()
        await until(lambda: not storage.statistics().failure)

        assert told == expected
        assert await storage.records.get(refused.key) is None
        assert (await storage.window.ready(1, BEGINNING, 10, ROOM)).invocations == (waiting,)


async def test_a_call_that_raises_at_once_does_not_call_back(opened: Opened) -> None:
    told: list[object] = []
    async with opened() as storage:
        opened.fail()
        with pytest.raises(REFUSED):
            await storage.journal.append(made(storage))
        for call in (
            lambda: storage.journal.append(made(storage), then=lambda *_: told.append("append")),
            lambda: storage.journal.end_all([1], CANCELLED, then=lambda *_: told.append("cancel")),
            lambda: storage.cursors.append([(made(storage), "")], then=lambda *_: told.append("cursors")),
        ):
            with pytest.raises(NotStored):
                call()
        opened.heal()
        await until(lambda: not storage.statistics().failure)

    assert told == []


# --- the end ------------------------------------------------------------------------------------------------


async def test_writes_submitted_before_the_end_of_the_block_are_stored(opened: Opened) -> None:
    async with opened() as storage:
        one, two = await stored(storage), made(storage)
        storage.journal.start(one, NOW)
        storage.journal.settle(Settlement(invocation=one, state=State.SUCCESS, outcome=success(one)))
        appended = storage.journal.append(two)
    assert await appended == two.request_id

    async with opened() as storage:
        records = [await storage.records.get(invocation.key) for invocation in (one, two)]
        assert [record and record.state for record in records] == [State.SUCCESS, State.WAIT]


@pytest.mark.parametrize(
    "call", [*WRITES.values(), *READS.values()], ids=[*WRITES, *(f"read {name}" for name in READS)]
)
async def test_after_the_end_of_the_block_calls_are_refused(
    opened: Opened, call: Callable[[Storage], Awaitable[object]]
) -> None:
    async with opened() as storage:
        invocation = await started(storage)

    with pytest.raises(ShuttingDown):
        await call(storage)
    storage.journal.start(invocation, NOW)
    storage.journal.settle(Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation)))

    async with opened() as storage:
        assert (await storage.journal.recover()).revived == 1


async def test_an_end_that_cannot_be_stored_when_the_block_ends_is_dropped(opened: Opened) -> None:
    async with opened() as storage:
        invocation = await started(storage)
        opened.fail()
        with pytest.raises(REFUSED):
            await storage.journal.append(made(storage))
        storage.journal.settle(Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation)))

    async with opened() as storage:
        assert (await storage.journal.recover()).revived == 1


async def test_a_storage_that_only_a_restart_can_cure_ends_its_block(opened: Opened) -> None:
    told: list[Settlement] = []

    async def use() -> None:
        async with opened() as storage:
            invocation = await started(storage)
            opened.break_down()
            with pytest.raises(REFUSED):
                await storage.journal.append(made(storage))
            end = Settlement(invocation=invocation, state=State.SUCCESS, outcome=success(invocation))
            storage.journal.settle(end, then=told.append)
            with pytest.raises(NotStored):
                storage.journal.append(made(storage))
            assert storage.broken
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as broken, anyio.fail_after(60):
        await use()

    assert broken.group_contains(JournalBroken)
    async with opened() as storage:
        assert (await storage.journal.recover()).revived == 1
        assert (storage.broken, told) == (False, [])


# --- clusters of one engine ----------------------------------------------------------------------------------


async def test_the_slot_fits_into_a_key(storage: Storage) -> None:
    assert 0 <= storage.cluster.slot < 1 << SLOT_BITS


async def test_an_engine_alone_owns_all_work(storage: Storage) -> None:
    assert storage.cluster.owns("a trigger")
    assert storage.cluster.owns("another trigger")
    assert storage.cluster.remaining() > 0


async def test_an_engine_alone_stays_a_member(storage: Storage) -> None:
    with anyio.move_on_after(0.01) as waited:
        await storage.cluster.lost()

    assert waited.cancelled_caught
    assert not storage.broken
