"""Contract of outboxes: a delivery is pending from the invocation's end until it succeeds or is given up."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from engine.model import DestinationSpec, PendingDelivery, State
from engine.protocols import Count, DeliveryFilter, Storage
from tests.support.storages import NOW, SINK, Opened, ended, failure, made, on_sqlite, settled, started

LATER = NOW + 100_000


async def pending(storage: Storage) -> list[PendingDelivery]:
    return list((await storage.outbox.due(LATER, 100, 100))[0])


async def test_a_delivery_is_stored_with_the_end_that_causes_it(storage: Storage) -> None:
    invocation = await ended(storage, 7, deliver_to=SINK)
    [debt] = await pending(storage)

    assert (debt.key, debt.function_id, debt.condition, debt.destination) == (invocation.key, 7, "success", SINK)
    assert (debt.due_at, debt.tries, debt.error) == (invocation.due_at + 1, 0, "")


async def test_a_failure_and_a_discard_are_delivered_as_failures(storage: Storage) -> None:
    for state in (State.FAIL, State.DISCARD):
        invocation = await started(storage)
        await settled(storage, invocation, failure(invocation), state=state, deliver_to=SINK)

    assert [debt.condition for debt in await pending(storage)] == ["failure", "failure"]


async def test_only_what_is_due_is_given_earliest_first_and_when_to_look_again(storage: Storage) -> None:
    late = await ended(storage, at=NOW + 30, deliver_to=SINK)
    two, one = (
        await ended(storage, at=NOW + 31, due_at=NOW + 20, deliver_to=SINK),
        await ended(storage, at=NOW + 32, due_at=NOW + 10, deliver_to=SINK),
    )

    due, next_due = await storage.outbox.due(NOW + 25, 10, 10)

    assert [debt.key for debt in due] == [one.key, two.key]
    assert next_due == late.due_at + 1


async def test_deliveries_of_an_invocation_are_found_also_when_given_up(storage: Storage) -> None:
    one, other = await ended(storage, deliver_to=SINK), await ended(storage, deliver_to=SINK)
    [debt] = [debt for debt in await pending(storage) if debt.key == one.key]
    await storage.outbox.postpone(debt, None, "gone")

    given_up, waiting = [await storage.outbox.deliveries_of(key) for key in (one.key, other.key)]

    assert [(debt.key, debt.error, debt.due_at) for debt in given_up] == [(one.key, "gone", math.inf)]
    assert [debt.key for debt in waiting] == [other.key]
    assert await storage.outbox.deliveries_of(99) == []


async def test_no_more_is_given_than_asked_for(storage: Storage) -> None:
    for _ in range(3):
        await ended(storage, deliver_to=SINK)

    assert len((await storage.outbox.due(LATER, 2, 100))[0]) == 2


async def test_a_page_has_deliveries_to_each_destination_however_many_one_has(storage: Storage) -> None:
    other = replace(SINK, param='{"func_urn":"urn:y"}')
    for sink in (*[SINK] * 9, other, replace(SINK, destination="A")):
        await ended(storage, deliver_to=sink)
    every = await pending(storage)
    few, several = (await storage.outbox.due(LATER, 9, 100))[0], (await storage.outbox.due(LATER, 100, 5))[0]

    assert len(few) <= 9
    assert {debt.destination for debt in few} == {SINK, other, replace(SINK, destination="A")}
    assert several == every[:5] + every[9:]


async def test_a_delivery_and_the_invocation_that_it_becomes_are_stored_together(opened: Opened) -> None:
    async with opened() as storage:
        await ended(storage, deliver_to=SINK)
        [debt] = await pending(storage)
        follower = made(storage, 2, payload=b"1234")
        await storage.outbox.delivered(debt, append=follower)

    async with opened() as storage:
        recovery = await storage.journal.recover()
        assert await pending(storage) == []
        assert recovery.backlog[2] == (1, 4)
        assert recovery.waiting == {2}


async def test_a_postponed_delivery_comes_back_with_its_error(storage: Storage) -> None:
    await ended(storage, deliver_to=SINK)
    [debt] = await pending(storage)
    await storage.outbox.postpone(debt, LATER - 1, "closed")
    [again] = await pending(storage)

    assert (again.delivery_id, again.due_at, again.tries, again.error) == (debt.delivery_id, LATER - 1, 1, "closed")


async def test_a_given_up_delivery_does_not_come_back(storage: Storage) -> None:
    await ended(storage, deliver_to=SINK)
    [debt] = await pending(storage)
    await storage.outbox.postpone(debt, None, "never")

    assert await storage.outbox.due(LATER, 10, 10) == ([], None)


@on_sqlite
async def test_given_up_deliveries_are_listed_by_function_in_pages(storage: Storage) -> None:
    for function_id in (1, 2, 1, 1):
        await ended(storage, function_id, deliver_to=SINK)
    debts = await pending(storage)
    for debt in debts[:3]:
        await storage.outbox.postpone(debt, None, "never")

    listed, count = await storage.outbox.given_up([1], 0, 1)
    rest, _ = await storage.outbox.given_up([1], 1, 10)

    assert ([debt.delivery_id for debt in (*listed, *rest)], count) == (
        [debts[0].delivery_id, debts[2].delivery_id],
        2,
    )
    assert (listed[0].error, listed[0].tries, listed[0].due_at) == ("never", 1, math.inf)
    assert await storage.outbox.count_given_up([1], 2) == Count(rows=2)
    assert await storage.outbox.count_given_up([1, 2], 2) == Count(rows=2, more=True)
    assert await storage.outbox.count_given_up([], 2) == Count(rows=0)


@on_sqlite
async def test_pending_deliveries_are_listed_by_function_in_the_order_of_ids(
    storage: Storage,
) -> None:
    for function_id in (1, 2, 1, 1, 1, 1):
        await ended(storage, function_id, deliver_to=SINK)
    tried, other, second, gone, third, done = await pending(storage)
    for debt, due_at in ((tried, LATER + 2), (other, LATER + 1), (gone, None)):
        await storage.outbox.postpone(debt, due_at, "closed")
    await storage.outbox.delivered(done)

    listed, further = await storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10)

    assert ([debt.delivery_id for debt in listed], further) == (
        [tried.delivery_id, second.delivery_id, third.delivery_id],
        0,
    )
    assert [(debt.error, debt.tries, debt.due_at) for debt in listed[:2]] == [
        ("closed", 1, LATER + 2),
        ("", 0, second.due_at),
    ]
    assert await storage.outbox.page(DeliveryFilter(functions=[]), 0, 10) == ([], 0)
    assert await storage.outbox.page(DeliveryFilter(functions=[1]), 0, 2) == (listed[:2], second.delivery_id)
    assert await storage.outbox.page(DeliveryFilter(functions=[1]), second.delivery_id, 2) == (listed[2:], 0)
    assert await storage.outbox.page(DeliveryFilter(functions=[1]), third.delivery_id, 2) == ([], 0)


@on_sqlite
@pytest.mark.parametrize("due_at", [None, LATER + 100])
async def test_a_failed_try_does_not_undo_a_redrive_that_came_meanwhile(storage: Storage, due_at: float | None) -> None:
    await ended(storage, 1, deliver_to=SINK)
    [tried] = await pending(storage)
    [redriven] = await storage.outbox.revive([1], [tried.delivery_id], LATER)
    await storage.outbox.postpone(tried, due_at, "closed")

    assert (await storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10))[0] == [redriven]
    assert (await storage.outbox.given_up([1], 0, 10))[1] == 0


@on_sqlite
async def test_given_up_and_waiting_deliveries_can_be_made_due_at_once(storage: Storage) -> None:
    for function_id in (1, 1, 2):
        await ended(storage, function_id, deliver_to=SINK)
    gone, waiting, other = await pending(storage)
    for debt, due_at in ((gone, None), (waiting, LATER + 100), (other, None)):
        await storage.outbox.postpone(debt, due_at, "never")

    done = await storage.outbox.revive([1], [waiting.delivery_id, gone.delivery_id, other.delivery_id, 99], LATER)

    assert [(debt.delivery_id, debt.due_at, debt.since, debt.tries) for debt in done] == [
        (debt.delivery_id, LATER, LATER, 0) for debt in (gone, waiting)
    ]
    assert sorted(await pending(storage), key=lambda debt: debt.delivery_id) == done
    assert await storage.outbox.given_up([1], 0, 10) == ([], 0)
    assert await storage.outbox.revive([1], [], LATER) == []


@on_sqlite
async def test_lists_and_counts_of_one_destination_have_no_other(storage: Storage) -> None:
    other = replace(SINK, param='{"func_urn":"urn:y"}')
    for function_id, sink in ((1, SINK), (1, other), (1, other), (2, other), (1, other)):
        await ended(storage, function_id, deliver_to=sink)
    debts = sorted(await pending(storage), key=lambda debt: debt.delivery_id)
    for debt in debts[1:3]:
        await storage.outbox.postpone(debt, None, "never")
    chosen = DeliveryFilter(functions=[1], destination=other)
    given_up = replace(chosen, given_up=True)

    pages = [
        await storage.outbox.page(selection, 0, 10)
        for selection in (chosen, given_up, replace(given_up, destination=SINK))
    ]
    page = await storage.outbox.page(given_up, 0, 1)
    counts, further = await storage.outbox.counts([1], 0)

    assert [([row.delivery_id for row in rows], after) for rows, after in pages] == [
        ([debts[4].delivery_id], 0),
        ([debts[1].delivery_id, debts[2].delivery_id], 0),
        ([], 0),
    ]
    assert page == (pages[1][0][:1], debts[1].delivery_id)
    assert await storage.outbox.page(given_up, page[1], 1) == (pages[1][0][1:], 0)
    assert {(count.function_id, count.destination, count.given_up, count.count) for count in counts} == {
        (1, SINK, False, 1),
        (1, other, False, 1),
        (1, other, True, 2),
    }
    assert (further, await storage.outbox.counts([], 0)) == (0, ([], 0))


@on_sqlite
async def test_only_given_up_deliveries_of_the_functions_are_discarded(opened: Opened) -> None:
    async with opened() as storage:
        for function_id in (1, 1, 1, 2):
            await ended(storage, function_id, deliver_to=SINK)
        gone, kept, waiting, other = sorted(await pending(storage), key=lambda debt: debt.delivery_id)
        for debt in (gone, kept, other):
            await storage.outbox.postpone(debt, None, "never")
        ids = [gone.delivery_id, waiting.delivery_id, other.delivery_id, 99]

        assert await storage.outbox.discard([1], ids) == [gone.delivery_id]
        assert await storage.outbox.discard([1], ids) == []
        assert await storage.outbox.discard([1], []) == []

    async with opened() as storage:
        assert [debt.delivery_id for debt in await pending(storage)] == [waiting.delivery_id]
        left, count = await storage.outbox.given_up([1, 2], 0, 10)
        assert ([debt.delivery_id for debt in left], count) == ([kept.delivery_id, other.delivery_id], 2)


async def test_pending_deliveries_outlive_the_engine_and_their_ids_are_never_used_again(opened: Opened) -> None:
    async with opened() as storage:
        await ended(storage, deliver_to=SINK)
        [first] = await pending(storage)

    async with opened() as storage:
        assert await pending(storage) == [first]
        await storage.outbox.delivered(first)
        await ended(storage, deliver_to=SINK)
        [second] = await pending(storage)
        assert second.delivery_id > first.delivery_id


@on_sqlite
async def test_deliveries_are_redirected_to_the_present_destinations_of_their_versions(opened: Opened) -> None:
    present = replace(SINK, param='{"func_urn":"urn:present"}')
    async with opened() as storage:
        for number, version in ((1, "v1"), (1, "v2"), (2, "v1")):
            await ended(storage, number, version=version, deliver_to=SINK)
        first, second, other = await pending(storage)
        await storage.outbox.postpone(first, None, "wrong")
        asked: list[tuple[int, str, str]] = []

        def destination_of(function_id: int, version: str, condition: str) -> DestinationSpec | None:
            asked.append((function_id, version, condition))
            return present if version == "v1" else None

        ids = [debt.delivery_id for debt in (first, second, other)]
        [moved] = await storage.outbox.revive([1], [*ids, 99], NOW, destination_of)

        assert sorted(asked) == [(1, "v1", "success"), (1, "v2", "success")]
        assert (moved.delivery_id, moved.destination, moved.due_at) == (first.delivery_id, present, NOW)
        assert [debt.destination for debt in await pending(storage)] == [present, SINK, SINK]


@on_sqlite
async def test_deliveries_that_wait_are_discarded_apart_from_given_up_ones(storage: Storage) -> None:
    for _ in range(2):
        await ended(storage, deliver_to=SINK)
    waits, gone = await pending(storage)
    await storage.outbox.postpone(gone, None, "wrong")
    ids = [waits.delivery_id, gone.delivery_id]

    assert await storage.outbox.discard([2], ids, given_up=False) == []
    assert await storage.outbox.discard([1], ids, given_up=False) == [waits.delivery_id]
    assert await storage.outbox.discard([1], ids) == [gone.delivery_id]
