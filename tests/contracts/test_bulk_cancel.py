"""Contract of the scan of waiting invocations, and of their end in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from engine.model import Code, State
from engine.protocols import FIRST, Place, Selection, Storage, WaitingEnd
from tests.support.storages import (
    CANCELLED,
    NOW,
    SINK,
    Opened,
    discarded,
    ended,
    failure,
    record_of,
    retried,
    started,
    stored,
)


async def scanned(storage: Storage, selection: Selection, limit: int = 500) -> list[Sequence[int]]:
    """Return the keys of each step of a scan."""
    steps, after = list[Sequence[int]](), FIRST
    place: Place | None = after
    while place is not None:
        scan = await storage.records.waiting(selection, place, limit)
        steps.append(list(scan.keys))
        place = scan.reached
    return steps


async def test_a_scan_has_ready_invocations_in_order_then_delayed_ones_by_due_time(storage: Storage) -> None:
    last = await stored(storage, rank=9.0)
    first = await stored(storage, rank=-9.0)
    late = await stored(storage, due_at=NOW + 900, delayed=True)
    soon = await stored(storage, due_at=NOW + 90, delayed=True)
    await started(storage)
    await ended(storage)

    assert await scanned(storage, Selection(function_id=1)) == [[first.key, last.key, soon.key, late.key]]


async def test_the_steps_of_a_scan_have_each_invocation_once(storage: Storage) -> None:
    ready = [await stored(storage, rank=5.0) for _ in range(5)]
    delayed = [await stored(storage, due_at=NOW + 5, delayed=True) for _ in range(2)]
    expected = [invocation.key for invocation in [*ready, *delayed]]

    steps = await scanned(storage, Selection(function_id=1), limit=2)

    assert [key for step in steps for key in step] == expected
    assert max(len(step) for step in steps) == 2


async def test_a_scan_leaves_out_other_functions_and_what_does_not_match(storage: Storage) -> None:
    other = await stored(storage, source="API")
    timer = await stored(storage, source="TIMER", version="v1", at=NOW + 100_000)
    delayed = await stored(storage, source="TIMER", delayed=True, due_at=NOW + 200_050, at=NOW + 200_000)
    await stored(storage, 2, source="TIMER")
    await stored(storage, 2, source="TIMER", delayed=True)

    by_source = await scanned(storage, Selection(function_id=1, source="TIMER"))
    by_version = await scanned(storage, Selection(function_id=1, version="v1"))
    by_time = await scanned(storage, Selection(function_id=1, begin=NOW + 150_000, end=NOW + 250_000))
    all_ = await scanned(storage, Selection(function_id=1))

    assert (by_source, by_version) == ([[timer.key, delayed.key]], [[timer.key]])
    assert by_time == [[delayed.key]]
    assert sorted(all_[0]) == sorted([timer.key, delayed.key, other.key])


async def test_only_waiting_invocations_end_and_their_records_stay(storage: Storage) -> None:
    ready, delayed = await stored(storage, payload=b"12345"), await stored(storage, delayed=True)
    tried = await retried(storage, await started(storage), failure(ready))
    running, done = await started(storage), await ended(storage)
    told = asyncio.get_running_loop().create_future()
    keys = [ready.key, delayed.key, tried.key, running.key, done.key, 1]

    result = await storage.journal.end_all(keys, CANCELLED, then=lambda *said: told.set_result(said))

    assert list(result) == [(ready.key, 5), (delayed.key, 2), (tried.key, 2)]
    assert told.result() == (result, True)
    records = [await storage.records.get(key) for key in keys[:5]]
    assert [record and record.state for record in records] == [State.FAIL] * 3 + [State.RUNNING, State.SUCCESS]
    assert [record and record.code for record in records[:3]] == [Code.CANCELLED] * 3
    assert [len(record.attempts) if record else 0 for record in records[:3]] == [0, 0, 1]


async def test_ended_invocations_owe_nothing_and_leave_window_and_backlog(opened: Opened) -> None:
    async with opened() as storage:
        kept = await ended(storage, deliver_to=SINK)
        gone = [await stored(storage, payload=b"123") for _ in range(3)]
        gone.append(await stored(storage, delayed=True, due_at=NOW, payload=b"123"))
        await storage.journal.end_all([invocation.key for invocation in gone], CANCELLED)
        due, _ = await storage.window.promote(NOW * 2, 10, 1000)
        page = await storage.window.ready(1, (float("-inf"), 0), 10, 1000)
        deliveries, _ = await storage.outbox.due(NOW * 2, 10, 10)

        assert (due, page.invocations) == ((), ())
        assert [delivery.key for delivery in deliveries] == [kept.key]
    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert recovery.backlog.get(1, (0, 0)) == (0, 0)
        assert recovery.backlog[0][0] == 5


async def test_discarded_invocations_owe_the_destination_of_failures(storage: Storage) -> None:
    old, running = await stored(storage), await started(storage)
    end = WaitingEnd(state=State.DISCARD, outcome=discarded(), deliver_to=SINK)
    await storage.journal.end_all([old.key, running.key], end)
    record = await record_of(storage, old)
    due, _ = await storage.outbox.due(NOW * 2, 10, 10)

    assert (record.state, record.started_at) == (State.DISCARD, None)
    assert [(delivery.key, delivery.condition, delivery.destination) for delivery in due] == [
        (old.key, "failure", SINK)
    ]
