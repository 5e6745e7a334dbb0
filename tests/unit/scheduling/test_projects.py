"""Shares of projects in the run queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Mode
from engine.scheduling.function_queue import Entry
from engine.scheduling.projects import Projects
from engine.scheduling.runqueue import RunQueue
from tests.support.builders import a_function, call, entry


def shared(projects: str, *, other_slots: int = 1, memory: int = 100, **sizes: Any) -> RunQueue:
    """Return a queue of functions, whose ids begin at 1, in the projects named by one letter each."""
    known = Projects(other_slots=other_slots)
    made = RunQueue(**{"slots": 4, "sync_slots": 0, **sizes}, memory=memory, projects=known)
    for function_id, project in enumerate(projects, 1):
        known.follow(function_id, a_function(function_id, project=project))
        made.configure(function_id, weight=1.0, limit=-1, memory=10)
    return made


def taken(q: RunQueue) -> list[int]:
    """Start all that may start. Return the functions."""
    return [started.invocation.function_id for started in iter(q.pop, None)]


def runs(q: RunQueue, number: int) -> Counter[int]:
    """Run one invocation after another, a second each. Return the number of runs by function."""
    counts = Counter[int]()
    for _ in range(number):
        chosen = q.pop()
        assert chosen is not None
        counts[chosen.invocation.function_id] += 1
        q.release(chosen, 1.0)
    return counts


def test_projects_share_the_slots_first_and_then_their_functions() -> None:
    q = shared("aaab", other_slots=0)
    for function_id in (1, 2, 3, 4) * 30:
        q.push(entry(function_id))

    assert runs(q, 60) == {1: 10, 2: 10, 3: 10, 4: 30}


def test_a_project_that_comes_back_has_no_credit_for_its_pause() -> None:
    q = shared("ab", other_slots=0)
    for function_id in (1,) * 50 + (2,) * 3:
        q.push(entry(function_id))
    before = runs(q, 33)
    for _ in range(20):
        q.push(entry(2))

    assert (before, runs(q, 20)) == ({1: 30, 2: 3}, {1: 10, 2: 10})


@pytest.mark.parametrize("kind", [entry, call])
def test_long_runs_of_one_project_leave_a_slot_to_the_first_run_of_another(kind: Callable[[int], Entry]) -> None:
    q = shared("aaaab", sync_slots=0 if kind is call else 1, slots=5)
    for function_id in (1, 2, 3, 4) * 3:
        q.push(kind(function_id))
    held = len(taken(q))
    for _ in range(2):
        q.push(kind(5))

    assert held == (4 if kind is call else 3)
    assert taken(q) == [5]


def test_calls_beside_asynchronous_runs_leave_a_slot_to_the_first_asynchronous_run_of_another_project() -> None:
    q = shared("ab", slots=6, sync_slots=2)
    for _ in range(9):
        q.push(entry(1))
    running = taken(q)
    for _ in range(9):
        q.push(call(1))
    running += taken(q)
    q.push(entry(2))

    assert (running, taken(q)) == ([1] * 5, [2])


def test_a_project_alone_takes_all_slots_and_all_memory() -> None:
    q = shared("aa", other_slots=2, memory=40)
    for function_id in (1, 2, 1, 2):
        q.push(entry(function_id))

    assert len(taken(q)) == 4


def test_runs_of_one_project_leave_memory_to_the_first_run_of_another() -> None:
    q = shared("ab", memory=40)
    q.configure(1, weight=1.0, limit=-1, memory=15)
    for _ in range(4):
        q.push(entry(1))
    first = taken(q)
    q.push(entry(2))

    assert (first, taken(q)) == ([1, 1], [2])


def test_a_run_larger_than_all_memory_leaves_the_part_for_other_projects() -> None:
    q = shared("ab", memory=40)
    q.configure(1, weight=1.0, limit=-1, memory=1000)
    q.push(entry(1))
    first = taken(q)
    q.push(entry(2))

    assert (first, taken(q), q.statistics().memory) == ([1], [2], 40)


def test_a_large_run_that_waits_delays_no_first_run_of_another_project_and_starts_when_memory_is_free() -> None:
    q = shared("abc", memory=40)
    q.configure(1, weight=1.0, limit=-1, memory=1000)
    q.configure(2, weight=1.0, limit=-1, memory=15)
    q.push(entry(2))
    held = q.pop()
    assert held is not None
    for function_id in (1, 3, 3, 2):
        q.push(entry(function_id))
    assert taken(q) == [3]

    q.release(held, 5.0)  # 30 MB are free

    assert taken(q) == [1]


def test_an_invocation_that_must_run_alone_is_not_passed_by_other_projects() -> None:
    q = shared("ab")
    q.push(entry(1))
    assert taken(q) == [1]
    q.push(entry(2, crash_count=3))
    q.push(entry(1))

    assert q.pop() is None


@given(
    st.sampled_from(["aaaaa", "aabbc", "abcde"]),
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from(list(Mode)), st.integers(0, 3)), max_size=60),
)
def test_everything_pushed_comes_out_once(projects: str, pushed: list[tuple[int, Mode, int]]) -> None:
    q = shared(projects, slots=4, sync_slots=1, memory=35)
    q.configure(1, weight=1.0, limit=-1, memory=1000)
    running, keys, done = list[Entry](), list[int](), list[int]()
    for function_id, mode, ended in pushed:
        new = entry(function_id) if mode is Mode.ASYNC else call(function_id)
        keys.append(new.invocation.key)
        q.push(new)
        running += iter(q.pop, None)
        for _ in range(min(ended, len(running))):
            done.append(running[0].invocation.key)
            q.release(running.pop(0), 0.1)
            running += iter(q.pop, None)
    while running:
        done.append(running[0].invocation.key)
        q.release(running.pop(0), 0.1)
        running += iter(q.pop, None)

    assert sorted(done) == sorted(keys)
    assert (q.statistics().running, q.statistics().memory) == (0, 0)


def test_a_project_is_there_as_long_as_it_has_functions() -> None:
    projects, counts = Projects(), list[int]()
    a, b = a_function(1, project="a"), a_function(2, project="b")
    for function_id, latest in ((1, a), (2, b), (2, b), (3, a), (2, None), (2, None), (3, None), (1, None)):
        projects.follow(function_id, latest)
        counts.append(projects.count)

    assert counts == [1, 2, 2, 2, 1, 1, 1, 0]
    assert projects.of(1) == ""
