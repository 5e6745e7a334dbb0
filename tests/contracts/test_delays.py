"""Contract of journals: corrections of due times that were drawn while the clock was far ahead."""

from __future__ import annotations

import pytest

from engine.model.delays import LONGEST_DELAY
from engine.protocols import Storage
from tests.contracts.storage import NOW, ROOM, Opened, failure, made, retried, started, stored

DAY = 86_400.0
FAR = NOW + 3650 * DAY  #: time of a clock that is far ahead
LATER = 1e12


async def delayed(storage: Storage, at: float, delay: float) -> int:
    """Store an invocation that was accepted at ``at`` with a delay, and return its key."""
    due_at = at + delay
    one = await stored(storage, at=at, delayed=True, due_at=due_at, first_due_at=due_at, rank=due_at - 60.0)
    return one.key


async def due_times(storage: Storage) -> dict[int, tuple[float, float, float]]:
    """Return due time, first due time and rank of all delayed invocations by key, relative to ``NOW``."""
    promoted, _ = await storage.window.promote(LATER, 100, ROOM)
    return {one.key: (one.due_at - NOW, one.first_due_at - NOW, one.rank - NOW) for one in promoted}


async def test_a_delay_counts_from_the_correction_of_the_clock(opened: Opened) -> None:
    async with opened() as storage:
        soon, later = await delayed(storage, FAR, 10.0), await delayed(storage, FAR, 1000.0)

        assert await storage.journal.correct_due(NOW, NOW - 600.0, 10) == (2, NOW)
        assert await due_times(storage) == {
            soon: pytest.approx((0.0, 0.0, -60.0), abs=0.01),
            later: pytest.approx((400.0, 400.0, 340.0), abs=0.01),
        }


async def test_a_retry_that_is_due_in_years_is_due_now(opened: Opened) -> None:
    async with opened() as storage:
        one = await started(storage, at=NOW - 50.0)
        retry = await retried(storage, one, failure(one), after=3650 * DAY)

        assert await storage.journal.correct_due(NOW, NOW - 600.0, 10) == (1, NOW)
        assert await due_times(storage) == {retry.key: pytest.approx((0.0, -50.0, 0.0), abs=0.01)}


async def test_an_invocation_with_an_unknown_delay_is_due_now(opened: Opened) -> None:
    """Accept an invocation after the clock was set back, but not far enough: its key is later than its due time."""
    async with opened() as storage:
        made(storage, at=FAR + 3650 * DAY)
        one = await delayed(storage, FAR, 10.0)

        assert await storage.journal.correct_due(NOW, NOW, 10) == (1, NOW)
        assert (await due_times(storage))[one][0] == 0.0


async def test_due_times_of_a_right_clock_stay(opened: Opened) -> None:
    async with opened() as storage:
        made(storage, at=NOW - DAY)
        delays = (10.0, LONGEST_DELAY, 30 * DAY)  # the last one is of a plugin: the API refuses it
        keys = [await delayed(storage, NOW - 1.0, delay) for delay in delays]
        made(storage, at=FAR)
        keys.append(await delayed(storage, NOW - 1.0, LONGEST_DELAY))  # with a key that is far ahead

        changed, next_due = await storage.journal.correct_due(NOW, NOW, 10)

        assert (changed, next_due) == (0, NOW + 9.0)
        assert [one[0] for one in (await due_times(storage)).values()] == pytest.approx(
            [9.0, LONGEST_DELAY - 1.0, LONGEST_DELAY - 1.0, 30 * DAY - 1.0]
        )
        assert len(keys) == 4


async def test_a_step_of_the_correction_takes_as_many_rows_as_it_may(opened: Opened) -> None:
    async with opened() as storage:
        for _ in range(3):
            await delayed(storage, FAR, 10.0)

        steps = [await storage.journal.correct_due(NOW, NOW, 2) for _ in range(3)]

        assert [changed for changed, _ in steps] == [2, 1, 0]


async def test_corrected_due_times_are_on_disk(opened: Opened) -> None:
    async with opened() as storage:
        one = await delayed(storage, FAR, 10.0)
        await storage.journal.correct_due(NOW, NOW, 10)
    async with opened() as storage:
        assert await due_times(storage) == {one: pytest.approx((10.0, 10.0, -50.0), abs=0.01)}


async def test_only_delayed_invocations_are_corrected(opened: Opened) -> None:
    async with opened() as storage:
        ready = await stored(storage, at=FAR)
        await started(storage, at=FAR)

        assert await storage.journal.correct_due(NOW, NOW, 10) == (0, None)
        page = await storage.window.ready(1, (float("-inf"), 0), 10, ROOM)
        assert [one.due_at for one in page.invocations] == [ready.due_at]
