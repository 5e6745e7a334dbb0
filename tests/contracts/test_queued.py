"""Contract of the numbers of waiting invocations by function."""

from __future__ import annotations

from engine.protocols import Queued
from tests.contracts.storage import NOW, Opened, ended, started, stored


async def test_what_waits_is_counted_by_function_and_kind(opened: Opened) -> None:
    async with opened() as storage:
        later, first = await stored(storage, rank=5.0), await stored(storage, rank=-60.0, due_at=NOW - 3)
        await stored(storage, delayed=True, due_at=NOW + 20)
        await stored(storage, delayed=True, due_at=NOW + 10)
        await stored(storage, 2, ordering_key="a")
        await stored(storage, 2, ordering_key="a")
        await ended(storage)
        await started(storage)

        found = await storage.records.queued([1, 2, 3], 100)

        assert found[1] == Queued(ready=2, first=first.key, first_due=NOW - 3, next_due=NOW + 10)
        assert (found[2].ready, found[2].held, found[2].next_due) == (1, 1, None)
        assert found[3] == Queued()
        assert later.key != first.key


async def test_counts_end_at_a_limit(opened: Opened) -> None:
    async with opened() as storage:
        for due in (3, 1, 2):
            await stored(storage, rank=float(due), due_at=NOW)
            await stored(storage, 2, delayed=True, due_at=NOW + due)
        await stored(storage, delayed=True, due_at=NOW + 9)
        for _ in range(4):
            await stored(storage, 3, ordering_key="a")

        found = await storage.records.queued([1, 2, 3], 2)

        assert (found[1].ready, found[1].next_due, found[2].next_due, found[3].held) == (2, None, NOW + 1, 2)
