"""Contract of windows: pages from disk have the same order as in memory."""

from __future__ import annotations

from random import Random

from engine.model import Invocation, State
from engine.protocols import Settlement, Storage
from engine.scheduling.function_queue import Entry
from engine.scheduling.runqueue import RunQueue
from tests.support.storages import BEGINNING, CANCELLED, NOW, ROOM, Opened, ended, made, started, stored, success


async def keys_of(storage: Storage, function_id: int = 1, *, rows: int = 100) -> list[int]:
    page = await storage.window.ready(function_id, BEGINNING, rows, ROOM)
    return [invocation.key for invocation in page.invocations]


async def test_the_smallest_rank_comes_first_and_of_equals_the_oldest(storage: Storage) -> None:
    second, third = await stored(storage, rank=5.0), await stored(storage, rank=5.0)
    first = await stored(storage, rank=-60.0)

    assert await keys_of(storage) == [first.key, second.key, third.key]


async def test_a_page_begins_behind_the_horizon_also_among_equals(storage: Storage) -> None:
    one, two, three = [await stored(storage, rank=5.0) for _ in range(3)]

    page = await storage.window.ready(1, one.rank_key, 10, ROOM)

    assert [i.key for i in page.invocations] == [two.key, three.key]
    assert page.complete


async def test_a_page_has_a_mark_whether_more_may_follow(storage: Storage) -> None:
    for _ in range(3):
        await stored(storage)

    assert not (await storage.window.ready(1, BEGINNING, 2, ROOM)).complete
    assert (await storage.window.ready(1, BEGINNING, 4, ROOM)).complete


async def test_a_page_ends_when_it_has_bytes_enough_but_has_at_least_one_row(storage: Storage) -> None:
    for _ in range(3):
        await stored(storage, payload=b"x" * 100)

    page = await storage.window.ready(1, BEGINNING, 10, 50)

    assert len(page.invocations) == 1
    assert not page.complete


async def test_only_what_waits_for_its_turn_is_ready(storage: Storage) -> None:
    await started(storage)
    await ended(storage)
    await stored(storage, delayed=True)
    await stored(storage, 2)
    await storage.journal.end_all([(await stored(storage)).key], CANCELLED)
    invocation = await stored(storage)

    assert await keys_of(storage) == [invocation.key]


async def test_a_page_sees_what_was_submitted_before_it(storage: Storage) -> None:
    one, two = await stored(storage), made(storage)
    storage.journal.start(one, NOW)
    appended = storage.journal.append(two)

    assert await keys_of(storage) == [two.key]
    await appended


async def test_a_page_has_nothing_that_was_started_or_ended_before_it(storage: Storage) -> None:
    begun, over, gone, left = [await stored(storage) for _ in range(4)]
    storage.journal.start(begun, NOW)
    storage.journal.start(over, NOW)
    storage.journal.settle(Settlement(invocation=over, state=State.SUCCESS, outcome=success(over)))
    storage.journal.end_all([gone.key], CANCELLED)

    assert await keys_of(storage) == [left.key]


async def test_due_invocations_are_promoted_earliest_first_with_the_next_due_time(storage: Storage) -> None:
    late = await stored(storage, delayed=True, due_at=NOW + 30)
    two = await stored(storage, delayed=True, due_at=NOW + 20)
    invocation = await stored(storage, 2, delayed=True, due_at=NOW + 10)

    promoted, next_due = await storage.window.promote(NOW + 20, 10, ROOM)

    assert [i.key for i in promoted] == [invocation.key, two.key]
    assert [i.delayed for i in promoted] == [False, False]
    assert next_due == late.due_at


async def test_a_promotion_takes_as_many_rows_as_allowed(storage: Storage) -> None:
    one, two = [await stored(storage, delayed=True, due_at=NOW + n) for n in (1, 2)]

    promoted, next_due = await storage.window.promote(NOW + 5, 1, ROOM)

    assert [i.key for i in promoted] == [one.key]
    assert next_due == two.due_at


async def test_a_promotion_takes_about_as_many_bytes_as_allowed_and_returns_the_next_due_time(storage: Storage) -> None:
    rows = [await stored(storage, delayed=True, due_at=NOW + n, payload=b"x" * 10) for n in range(3)]

    promoted, next_due = await storage.window.promote(NOW + 5, 10, 15)

    assert [i.key for i in promoted] == [row.key for row in rows[:2]]
    assert next_due == rows[2].due_at


async def test_a_promoted_invocation_is_ready_and_not_promoted_again(storage: Storage) -> None:
    invocation = await stored(storage, delayed=True, due_at=NOW)
    await storage.window.promote(NOW, 10, ROOM)

    assert await keys_of(storage) == [invocation.key]
    assert await storage.window.promote(NOW, 10, ROOM) == ((), None)


async def test_the_order_on_disk_is_the_order_in_memory(opened: Opened) -> None:
    random = Random(4)
    queue = RunQueue(slots=1, sync_slots=0, memory=1000)
    async with opened() as storage:
        for _ in range(150):
            due_at, priority = NOW + random.randrange(5) * 60, random.randrange(10)
            invocation = await stored(storage, due_at=due_at, priority=priority, rank=due_at - priority * 60.0)
            queue.push(Entry(invocation))

        assert await paged(storage, rows=7) == popped(queue)


async def paged(storage: Storage, rows: int) -> list[int]:
    """Read all ready rows in pages, as the scheduler does."""
    invocations: list[Invocation] = []
    complete = False
    while not complete:
        page = await storage.window.ready(1, invocations[-1].rank_key if invocations else BEGINNING, rows, ROOM)
        invocations += page.invocations
        complete = page.complete
    return [invocation.key for invocation in invocations]


def popped(queue: RunQueue) -> list[int]:
    keys = []
    while (entry := queue.pop()) is not None:
        keys.append(entry.invocation.key)
        queue.release(entry, 0.001)
    return keys
