"""Contract of the place of an invocation among those that wait."""

from __future__ import annotations

from engine.protocols import Standing
from tests.contracts.storage import NOW, Opened, ended, started, stored


async def test_ready_invocations_of_the_same_function_are_counted_up_to_a_limit(opened: Opened) -> None:
    async with opened() as storage:
        one, two, three = [await stored(storage, rank=5.0) for _ in range(3)]
        first = await stored(storage, rank=-60.0)
        await stored(storage, 2, rank=-90.0)
        await stored(storage, delayed=True, due_at=NOW, rank=-90.0)
        await started(storage, rank=-90.0)

        places = [await storage.records.standing(key.key, 100) for key in (first, one, two, three)]
        assert [place.ahead for place in places] == [0, 1, 2, 3]
        assert await storage.records.standing(three.key, 2) == Standing(ahead=2)


async def test_only_ready_invocations_have_a_place(opened: Opened) -> None:
    async with opened() as storage:
        delayed = await stored(storage, delayed=True, due_at=NOW)
        done = await ended(storage)

        assert [await storage.records.standing(key, 9) for key in (delayed.key, done.key, 1)] == [Standing()] * 3


async def test_the_place_of_a_running_invocation_says_whether_its_handler_has_begun(opened: Opened) -> None:
    async with opened() as storage:
        dispatched, begun = await started(storage, begun=False), await started(storage)

        assert await storage.records.standing(dispatched.key, 9) == Standing(begun=False)
        assert await storage.records.standing(begun.key, 9) == Standing(begun=True)
