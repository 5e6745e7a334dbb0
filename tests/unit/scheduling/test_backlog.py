from __future__ import annotations

import re
from collections.abc import Callable

import anyio
import pytest
from msgspec.structs import replace

from engine.errors import BacklogFull, Overloaded, SynchronousCallsFull
from engine.scheduling.backlog import Backlog, Limits
from engine.scheduling.projects import Projects
from tests.support.builders import a_function

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


def shared(*names: str, limits: Limits = LIMITS) -> Backlog:
    """Return a backlog with one function for each name of a project, whose ids begin at 1."""
    projects = Projects()
    for function_id, name in enumerate(names, 1):
        projects.follow(function_id, a_function(function_id, project=name))
    return Backlog(limits, projects=projects)


WIDE = Limits(rows=8, size=80, function_rows=8, function_size=80, sync_rows=8, sync_size=80)


def filled(add: Callable[[], object]) -> tuple[int, str]:
    """Add until there is no room. Return the number of those that were added, and the error."""
    for number in range(20):
        try:
            add()
        except Overloaded as full:
            return number, str(full)
    raise AssertionError("there is no limit")


@pytest.mark.parametrize(("size", "counts", "limit"), [(1, [4, 2, 1], "4 invocations"), (11, [3, 2, 1], "40 bytes")])
def test_a_project_that_fills_its_share_of_the_backlog_leaves_room_to_each_other_one(
    size: int, counts: list[int], limit: str
) -> None:
    backlog = shared("a", "b", "c", "a", limits=WIDE)
    full = [filled(lambda own=own: backlog.admit(own, size, "function")) for own in (1, 2, 3)]  # type: ignore[misc]

    assert [count for count, _ in full] == counts
    assert full[0][1] == f"the backlog of project a has reached its limit of {limit}"
    assert filled(lambda: backlog.admit_batch(4, 1, size, "function"))[0] == 0


def test_a_project_that_fills_its_share_of_synchronous_calls_leaves_room_to_another() -> None:
    backlog = shared("a", "b", limits=WIDE)
    full = [filled(lambda own=own: backlog.admit_sync(own, 1)) for own in (1, 2)]  # type: ignore[misc]
    for own, (count, _) in enumerate(full, 1):
        for _ in range(count):
            backlog.remove_sync(own, 1)

    assert full[0] == (4, "synchronous calls of project a have reached their limit of 4 invocations")
    assert full[1][0] == 2
    assert (backlog.calls.rows, backlog.calls.size) == (0, 0)
    assert {(sums.rows, sums.size) for sums in backlog.calls.by_project.values()} == {(0, 0)}


def test_a_project_alone_has_the_whole_backlog() -> None:
    backlog = shared("a", limits=WIDE)

    assert filled(lambda: backlog.admit(1, 1, "function"))[0] == 8
    assert filled(lambda: backlog.admit_sync(1, 1))[0] == 8


def test_credentials_of_several_projects_keep_room_for_those_without_functions() -> None:
    projects = Projects(named=True)
    projects.follow(1, a_function(1, project="a"))
    rows, full = Backlog(WIDE, projects=projects).admit_first(1, [1] * 9, "function")
    projects.note_credentials(named=False)
    alone, _ = Backlog(WIDE, projects=projects).admit_first(1, [1] * 9, "function")

    assert (rows, alone) == (4, 8)
    assert "project a has reached its limit of 4 invocations" in str(full)


def test_invocations_on_disk_count_except_ended_ones() -> None:
    backlog = Backlog(LIMITS)

    backlog.load({0: (99, 9_999), 1: (2, 20), 2: (0, 0)})

    assert (backlog.rows, backlog.size) == (2, 20)


def test_synchronous_calls_are_bounded_in_count_and_bytes() -> None:
    backlog = Backlog(LIMITS)
    with pytest.raises(SynchronousCallsFull, match="bytes"):
        backlog.admit_sync(1, 51)
    backlog.admit_sync(1, 50)
    with pytest.raises(SynchronousCallsFull, match="1 invocations"):
        backlog.admit_sync(1, 0)

    backlog.remove_sync(1, 50)

    backlog.admit_sync(1, 50)


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


def test_a_limit_of_one_is_for_one_and_a_sum_that_drifted_on_disk_stops_nothing() -> None:
    limits = replace(WIDE, sync_rows=1)
    backlog = shared("a", "b", limits=limits)
    backlog.admit_sync(1, 1)
    backlog.load({1: (1, 10)})
    for own in (2, 1):
        backlog.remove(own, 10)

    assert backlog.of(1) == (0, 0)
