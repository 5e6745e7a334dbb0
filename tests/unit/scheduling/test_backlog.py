from __future__ import annotations

import re

import anyio
import pytest

from engine.errors import BacklogFull, SynchronousCallsFull
from engine.scheduling.backlog import Backlog, Limits

LIMITS = Limits(rows=3, size=100, function_rows=2, function_size=60, sync_rows=1, sync_size=50)


@pytest.mark.parametrize(
    ("held", "more", "limit"),
    [
        ([(1, 10)], (1, 51), "one .* 60 bytes"),
        ([(1, 10), (1, 10)], (1, 10), "one .* 2 invocations"),
        ([(1, 50), (2, 40)], (3, 11), "all functions .* 100 bytes"),
        ([(1, 1), (1, 1), (2, 1)], (3, 1), "all functions .* 3 invocations"),
    ],
)
def test_each_limit_refuses_on_its_own(held: list[tuple[int, int]], more: tuple[int, int], limit: str) -> None:
    backlog = Backlog(LIMITS)
    for function_id, size in held:
        backlog.admit(function_id, size, "some")

    with pytest.raises(BacklogFull, match=limit):
        backlog.admit(*more, "one")


def test_an_ended_invocation_makes_room() -> None:
    backlog = Backlog(LIMITS)
    backlog.admit(1, 30, "one")
    backlog.admit(1, 30, "one")

    backlog.remove(1, 30)

    backlog.admit(1, 30, "one")
    assert (backlog.rows, backlog.size, backlog.of(1)) == (2, 60, (2, 60))


def test_invocations_on_disk_count_except_ended_ones() -> None:
    backlog = Backlog(LIMITS)

    backlog.load({0: (99, 9_999), 1: (2, 20), 2: (0, 0)})

    assert (backlog.rows, backlog.size) == (2, 20)


def test_synchronous_calls_are_bounded_in_count_and_bytes() -> None:
    backlog = Backlog(LIMITS)
    with pytest.raises(SynchronousCallsFull, match="bytes"):
        backlog.admit_sync(51)
    backlog.admit_sync(50)
    with pytest.raises(SynchronousCallsFull, match="1 calls"):
        backlog.admit_sync(0)

    backlog.remove_sync(50)

    backlog.admit_sync(50)


@pytest.mark.parametrize(
    ("rows", "size", "limit"), [(2, 10, "one .* 2 invocations"), (1, 60, "one .* 60 bytes"), (9, 9, "one .* 2 inv")]
)
def test_a_batch_is_counted_whole_or_not_at_all(rows: int, size: int, limit: str) -> None:
    backlog = Backlog(LIMITS)
    backlog.admit(1, 10, "one")

    with pytest.raises(BacklogFull, match=limit):
        backlog.admit_batch(1, rows, size, "one")
    assert (backlog.rows, backlog.size) == (1, 10)


def test_a_batch_beyond_every_limit_goes_in_when_nothing_else_is_there() -> None:
    backlog = Backlog(LIMITS)

    backlog.admit_batch(1, 50, 5_000, "one")

    assert backlog.of(1) == (50, 5_000)


@pytest.mark.parametrize(
    ("sizes", "counted", "limit"),
    [
        ([10, 10], (2, 20), None),
        ([10, 10, 10], (2, 20), "one .* 2 invocations"),
        ([10, 51, 1], (1, 10), "one .* 60 bytes"),
        ([61], (0, 0), "one .* 60 bytes"),
        ([], (0, 0), None),
    ],
)
def test_invocations_before_the_first_without_room_are_counted(
    sizes: list[int], counted: tuple[int, int], limit: str | None
) -> None:
    backlog = Backlog(LIMITS)

    rows, full = backlog.admit_first(1, sizes, "one")

    assert (rows, backlog.of(1)) == (counted[0], counted)
    assert (backlog.rows, backlog.size) == counted
    assert (full is None) == (limit is None)
    assert limit is None or re.search(limit, str(full))


def test_invocations_of_other_functions_take_room_from_a_batch() -> None:
    backlog = Backlog(LIMITS)
    backlog.admit(2, 50, "two")
    backlog.admit(2, 1, "two")

    rows, full = backlog.admit_first(1, [10, 10], "one")

    assert (rows, backlog.of(1)) == (1, (1, 10))
    assert "all functions" in str(full)


async def test_a_caller_that_waits_for_room_is_woken_by_the_end_that_makes_enough() -> None:
    backlog = Backlog(LIMITS)
    backlog.admit(1, 10, "one")
    backlog.admit(1, 10, "one")
    woken: list[int] = []

    async def wait(rows: int) -> None:
        await backlog.wait_for_room(1, rows, 1)
        woken.append(rows)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, 2)
        tasks.start_soon(wait, 1)
        await anyio.wait_all_tasks_blocked()
        backlog.remove(1, 10)
        await anyio.wait_all_tasks_blocked()
        first = list(woken)
        backlog.remove(1, 10)

    assert (first, woken) == ([1], [1, 2])


def test_the_largest_number_is_kept_until_it_begins_anew() -> None:
    backlog = Backlog(LIMITS)
    backlog.load({1: (2, 10)})
    backlog.add(2, 10)
    backlog.remove(1, 5)
    assert (backlog.rows, backlog.most_rows) == (2, 3)

    backlog.restart_most()
    assert backlog.most_rows == 2
