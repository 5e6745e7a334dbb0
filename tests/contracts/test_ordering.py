"""Contract of journals: invocations with one ordering key wait one behind the other."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import CursorMoved, IdempotencyConflict, NotStored
from engine.model import Invocation, State
from engine.protocols import FIRST, CursorMove, Place, Selection, Storage, WaitingEnd
from tests.support.storages import (
    CANCELLED,
    KINDS,
    NOW,
    ROOM,
    Opened,
    discarded,
    failure,
    made,
    ready_of,
    record_of,
    retried,
    settled,
    started,
    stored,
    success,
)

LATER = NOW + 1e6


async def ready(storage: Storage, function_id: int = 1) -> list[int]:
    """Promote due invocations, and return the keys of all that are ready."""
    await storage.window.promote(LATER, 1000, ROOM)
    return [invocation.key for invocation in await ready_of(storage, function_id)]


async def in_order(storage: Storage, *keys: str, **fields: Any) -> list[Invocation]:
    return [await stored(storage, ordering_key=key, **fields) for key in keys]


async def end(storage: Storage, invocation: Invocation) -> None:
    storage.journal.start(invocation, NOW)
    await settled(storage, invocation, success(invocation))


async def test_only_the_first_of_a_key_is_ready(storage: Storage) -> None:
    a, b, _, _ = await in_order(storage, "a", "b", "a", "b")
    free = await stored(storage)

    assert await ready(storage) == [a.key, b.key, free.key]


async def test_the_same_key_of_another_function_is_another_key(storage: Storage) -> None:
    await stored(storage, ordering_key="a")
    other = await stored(storage, 2, ordering_key="a")

    assert await ready(storage, 2) == [other.key]


async def test_a_caller_learns_whether_the_stored_invocation_is_held(storage: Storage) -> None:
    heard: list[tuple[bool, bool]] = []

    for _ in range(2):
        invocation = made(storage, ordering_key="a")
        await storage.journal.append(
            invocation, then=lambda invocation, stored: heard.append((invocation.held, stored))
        )

    assert heard == [(False, True), (True, True)]


async def test_the_end_of_an_invocation_releases_the_next_in_order_of_acceptance(storage: Storage) -> None:
    first, second, third = await in_order(storage, "a", "a", "a")
    await end(storage, first)

    assert await ready(storage) == [second.key]
    await end(storage, second)
    assert await ready(storage) == [third.key]


async def test_the_journal_announces_each_release(storage: Storage) -> None:
    released = []
    storage.journal.released.connect(lambda: released.append(True))
    free, first, second, _ = [await stored(storage, ordering_key=key) for key in ("", "a", "a", "a")]
    await end(storage, free)
    await asyncio.sleep(0)
    assert not released

    await end(storage, first)
    await asyncio.sleep(0)
    assert len(released) == 1
    await ready(storage)
    await storage.journal.end_all([second.key], CANCELLED)
    assert len(released) == 2


async def test_a_failure_without_a_retry_releases_the_next(storage: Storage) -> None:
    first, second = await in_order(storage, "a", "a")
    storage.journal.start(first, NOW)
    await settled(storage, first, failure(first))

    assert await ready(storage) == [second.key]


async def test_a_retry_holds_its_successors(storage: Storage) -> None:
    first, second = await in_order(storage, "a", "a")
    storage.journal.start(first, NOW)
    retry = await retried(storage, first, failure(first))

    assert await ready(storage) == [first.key]
    await end(storage, retry)
    assert await ready(storage) == [second.key]


async def test_a_delayed_invocation_holds_its_successors(storage: Storage) -> None:
    first, second = await stored(storage, ordering_key="a", delayed=True), await stored(storage, ordering_key="a")

    assert await ready(storage) == [first.key]
    await end(storage, first)
    assert await ready(storage) == [second.key]


async def test_a_held_invocation_keeps_its_delay(storage: Storage) -> None:
    first = await stored(storage, ordering_key="a")
    second = await stored(storage, ordering_key="a", delayed=True, due_at=NOW + 5000.0, rank=NOW + 5000.0)
    await end(storage, first)

    assert await storage.window.promote(NOW + 4000.0, 10, ROOM) == ((), NOW + 5000.0)
    assert await ready(storage) == [second.key]


async def test_a_held_invocation_does_not_wait_for_a_clock_that_was_set_back(storage: Storage) -> None:
    first = await started(storage, ordering_key="a", at=NOW)
    second = await stored(storage, ordering_key="a", at=NOW + 3600.0)
    await settled(storage, first, success(first))

    promoted, _ = await storage.window.promote(NOW + 1.0, 10, ROOM)
    assert [invocation.key for invocation in promoted] == [second.key]


async def test_a_cancelled_first_invocation_releases_the_next(storage: Storage) -> None:
    first, second = await in_order(storage, "a", "a")

    assert await storage.journal.end_all([first.key], CANCELLED) == [(first.key, 2)]
    assert await ready(storage) == [second.key]


async def test_a_held_invocation_can_be_cancelled_and_is_skipped(storage: Storage) -> None:
    first, second, third = await in_order(storage, "a", "a", "a")

    assert await storage.journal.end_all([second.key], CANCELLED) == [(second.key, 2)]
    assert await ready(storage) == [first.key]
    await end(storage, first)
    assert await ready(storage) == [third.key]
    record = await record_of(storage, second)
    assert (record.state, record.held) == (State.FAIL, False)


async def test_held_invocations_of_a_deleted_function_are_discarded(storage: Storage) -> None:
    ones = await in_order(storage, *"aaabbc")
    other = await stored(storage, 2, ordering_key="a")
    place: Place | None = FIRST
    while place is not None:
        scan = await storage.records.waiting(Selection(function_id=1), place, 2)
        await storage.journal.end_all(scan.keys, WaitingEnd(state=State.DISCARD, outcome=discarded()))
        place = scan.reached

    records = [await storage.records.get(invocation.key) for invocation in ones]
    assert {record.state for record in records if record} == {State.DISCARD}
    assert await ready(storage, 2) == [other.key]


async def test_held_invocations_are_still_held_after_a_crash(opened: Opened) -> None:
    async with opened() as storage:
        first = await started(storage, ordering_key="a")
        second, _ = await in_order(storage, "a", "a")
    async with opened() as storage:
        recovery = await storage.journal.recover()

        assert (recovery.revived, recovery.backlog[1]) == (1, (3, 6))
        assert await ready(storage) == [first.key]
        await end(storage, first)
        assert await ready(storage) == [second.key]


async def test_a_released_invocation_is_found_after_a_crash(opened: Opened) -> None:
    async with opened() as storage:
        first, second = await in_order(storage, "a", "a")
        await end(storage, first)
    async with opened() as storage:
        assert (await storage.journal.recover()).next_due is not None
        assert await ready(storage) == [second.key]


async def test_an_ordering_key_survives_a_restart_and_a_retry(opened: Opened) -> None:
    async with opened() as storage:
        first = await started(storage, ordering_key="a")
        await retried(storage, first, failure(first))
    async with opened() as storage:
        [promoted], _ = await storage.window.promote(LATER, 10, ROOM)

        assert (promoted.ordering_key, promoted.attempt) == ("a", 2)


async def test_a_batch_holds_its_own_later_invocations_and_moves_no_cursor_alone(storage: Storage) -> None:
    ones = [made(storage, ordering_key=key) for key in ("a", "b", "a", "")]
    held: list[bool] = []
    await storage.cursors.append(
        [(invocation, "") for invocation in ones],
        then=lambda stored, _: held.extend(invocation.held for invocation in stored),
    )

    assert held == [False, False, True, False]
    assert await ready(storage) == [ones[0].key, ones[1].key, ones[3].key]
    move = CursorMove(trigger_id="t", owner="function:1", generation=1, expected={}, positions={"p": b"1"})
    with pytest.raises(CursorMoved):
        await storage.cursors.append([(made(storage, ordering_key="c"), "")], move)
    assert len(await ready(storage)) == 3


async def test_a_repeated_idempotency_key_takes_no_place_in_the_order(storage: Storage) -> None:
    first, again, other = [made(storage, ordering_key="a") for _ in range(3)]
    await storage.journal.append(first, idempotency_key="k")

    assert await storage.journal.append(again, idempotency_key="k") == first.request_id
    with pytest.raises(IdempotencyConflict):
        await storage.journal.append(made(storage, ordering_key="a", payload=b"[]"), idempotency_key="k")
    await storage.journal.append(other, idempotency_key="l")
    await end(storage, first)
    assert await ready(storage) == [other.key]


async def test_a_refused_invocation_holds_no_other(storage: Storage, opened: Opened) -> None:
    opened.fail()
    with pytest.raises(NotStored):
        await stored(storage, ordering_key="a")
    opened.heal()
    while storage.statistics().failure:  # noqa: ASYNC110  (no event tells of it)
        await asyncio.sleep(0.001)
    invocation = await stored(storage, ordering_key="a")

    assert await ready(storage) == [invocation.key]


async def test_records_and_lists_show_held_invocations(storage: Storage) -> None:
    first, second, third = await in_order(storage, "a", "a", "b")
    records, count = await storage.records.list(Selection(function_id=1))

    assert [(record.key, record.state, record.held, record.ordering_key) for record in records] == [
        (first.key, State.WAIT, False, "a"),
        (third.key, State.WAIT, False, "b"),
        (second.key, State.WAIT, True, "a"),
    ]
    assert count == 3
    waiting = Selection(functions=frozenset({1, 2}), states=frozenset({State.WAIT}))
    assert (await storage.records.list(waiting))[1] == 3


async def test_the_predecessor_of_a_held_invocation_is_the_one_right_before_it(storage: Storage) -> None:
    ones = await in_order(storage, "a", "a", "a")
    first, second, third = [invocation.key for invocation in ones]

    places = [await storage.records.standing(key, 9) for key in (first, second, third)]
    assert [place.predecessor for place in places] == [None, first, second]
    storage.journal.start(ones[0], NOW)
    await storage.journal.end_all([second], CANCELLED)
    assert (await storage.records.standing(third, 9)).predecessor == first


async def test_a_scan_for_bulk_cancellation_has_held_invocations_first(storage: Storage) -> None:
    ones = await in_order(storage, *"aaabb")
    selection, place, keys = Selection(function_id=1), FIRST, list[int]()
    while True:
        scan = await storage.records.waiting(selection, place, 2)
        keys += scan.keys
        await storage.journal.end_all(scan.keys, CANCELLED)
        if scan.reached is None:
            break
        place = scan.reached

    assert keys == [ones[n].key for n in (1, 2, 4, 0, 3)]
    assert await ready(storage) == []


async def test_the_end_of_many_releases_the_next_of_each_key(storage: Storage) -> None:
    released = []
    storage.journal.released.connect(lambda: released.append(True))
    ones = await in_order(storage, *"aaab")

    assert len(await storage.journal.end_all([ones[0].key, ones[1].key], CANCELLED)) == 2
    await asyncio.sleep(0)
    assert released
    assert sorted(await ready(storage)) == [ones[2].key, ones[3].key]


async def test_as_many_of_a_key_are_ready_as_its_function_says(storage: Storage) -> None:
    storage.journal.per_key[1] = 2
    a, b, c, _, other = await in_order(storage, *"aaaab")

    assert await ready(storage) == [a.key, b.key, other.key]
    await end(storage, b)
    assert await ready(storage) == [a.key, c.key, other.key]


async def test_a_batch_leaves_room_for_as_many_of_a_key_as_its_function_says(storage: Storage) -> None:
    storage.journal.per_key[1] = 2
    first = await stored(storage, ordering_key="a")
    ones = [made(storage, ordering_key=key) for key in "aabbb"]
    await storage.cursors.append([(invocation, "") for invocation in ones])

    assert await ready(storage) == [invocation.key for invocation in (first, ones[0], ones[2], ones[3])]


async def test_with_a_larger_number_the_next_end_releases_as_many_as_there_is_room_for(storage: Storage) -> None:
    first, *held = await in_order(storage, *"aaaaaa")
    storage.journal.per_key[1] = 3
    late = await stored(storage, ordering_key="a")
    assert await ready(storage) == [first.key]

    await storage.journal.end_all([first.key], CANCELLED)
    assert await ready(storage) == [invocation.key for invocation in held[:3]]
    assert (await record_of(storage, late)).held


async def test_with_a_smaller_number_an_end_releases_none_until_there_is_room(storage: Storage) -> None:
    storage.journal.per_key[1] = 3
    a, b, c, d = await in_order(storage, *"aaaa")
    del storage.journal.per_key[1]

    await end(storage, a)
    await end(storage, c)
    assert await ready(storage) == [b.key]
    await end(storage, b)
    assert await ready(storage) == [d.key]


# --- any sequence of steps ----------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "append", "batch", "end", "retry", "cancel", "restart"]), st.integers(0, 99)),
    max_size=25,
)


class Model:
    """Order of all invocations that have not ended, by key. Checks that the ready ones are the first of each."""

    def __init__(self, per_key: int) -> None:
        self.per_key = per_key
        self.open: dict[str, list[Invocation]] = {}

    def add(self, *invocations: Invocation) -> None:
        for invocation in invocations:
            self.open.setdefault(invocation.ordering_key, []).append(invocation)

    def remove(self, invocation: Invocation) -> None:
        self.open[invocation.ordering_key] = [
            other for other in self.open[invocation.ordering_key] if other.key != invocation.key
        ]

    @property
    def firsts(self) -> list[Invocation]:
        return [invocation for line in self.open.values() for invocation in line[: self.per_key]]

    async def check(self, storage: Storage) -> None:
        assert sorted(await ready(storage)) == sorted(first.key for first in self.firsts)


async def step(storage: Storage, model: Model, action: str, number: int) -> None:
    everything = [invocation for line in model.open.values() for invocation in line]
    if action in ("append", "batch"):
        ones = [made(storage, ordering_key=f"k{(number + n) % 3}") for n in range(1 if action == "append" else 4)]
        model.add(*ones)
        if action == "append":
            await storage.journal.append(ones[0], idempotency_key=f"i{ones[0].key}" if number % 2 else "")
        else:
            await storage.cursors.append([(invocation, "") for invocation in ones])
    elif action == "cancel" and everything:
        chosen = everything[number % len(everything)]
        model.remove(chosen)
        assert await storage.journal.end_all([chosen.key], CANCELLED)
    elif action in ("end", "retry") and model.firsts:
        chosen = model.firsts[number % len(model.firsts)]
        storage.journal.start(chosen, NOW)
        if action == "end":
            model.remove(chosen)
            await settled(storage, chosen, success(chosen))
        else:
            line = model.open[chosen.ordering_key]
            line[line.index(chosen)] = await retried(storage, chosen, failure(chosen))


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS, per_key=st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_only_the_oldest_invocations_of_a_key_may_start_and_no_more_than_its_function_says(
    kind: str, steps: list[tuple[str, int]], per_key: int
) -> None:
    async def run(opened: Opened) -> None:
        model, left = Model(per_key), list(steps)
        while True:
            async with opened() as storage:
                storage.journal.per_key[1] = per_key
                await storage.journal.recover()
                await model.check(storage)
                while left:
                    action, number = left.pop(0)
                    if action == "restart":
                        break
                    await step(storage, model, action, number)
                    await model.check(storage)
                else:
                    return

    with TemporaryDirectory() as folder:
        asyncio.run(run(KINDS[kind](Path(folder))))
