"""Contract of record stores: lists, complete records and purging."""

from __future__ import annotations

import asyncio
from typing import Any

from engine.model import Invocation, State
from engine.protocols import Selection
from tests.contracts.storage import (
    NOW,
    SINK,
    Seams,
    Storage,
    cancelled,
    ended,
    failure,
    made,
    settled,
    started,
    stored,
    success,
)

AGE, MANY = 1000.0, 10_000_000


async def listed(seams: Seams, **selection: Any) -> list[int]:
    records, _ = await seams.records.list(Selection(**{"function_id": 1, **selection}))
    return [record.key for record in records]


async def purge(seams: Seams, now: float, *, rows: int = MANY, size: int = MANY) -> list[str]:
    purged: list[str] = []
    more = True
    while more:
        step = await seams.records.purge(now, age=AGE, rows=rows, size=size)
        purged += step.request_ids
        more = step.more
    return purged


# --- reading ------------------------------------------------------------------------------------------------


async def test_running_ones_come_first_then_waiting_then_delayed_then_ended_newest_first(storage: Storage) -> None:
    async with storage() as seams:
        old, new = await ended(seams), await ended(seams)
        delayed = await stored(seams, delayed=True)
        second, first = await stored(seams, rank=9.0), await stored(seams, rank=1.0)
        running = await started(seams)

        assert await listed(seams) == [one.key for one in (running, first, second, delayed, new, old)]


async def test_a_list_holds_one_function_only(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams, 1)
        await stored(seams, 2)

        assert await listed(seams) == [one.key]


async def test_states_can_be_chosen(storage: Storage) -> None:
    async with storage() as seams:
        good, waiting = await ended(seams), await stored(seams)
        bad = await started(seams)
        await settled(seams, bad, failure(bad))

        assert await listed(seams, states=frozenset({State.FAIL})) == [bad.key]
        assert await listed(seams, states=frozenset({State.WAIT, State.SUCCESS})) == [waiting.key, good.key]


async def test_versions_and_aliases_can_be_chosen(storage: Storage) -> None:
    async with storage() as seams:
        plain, called = await stored(seams, version="v1"), await stored(seams, version="v2", alias="prod")

        assert await listed(seams, version="v1") == [plain.key]
        assert await listed(seams, alias="prod") == [called.key]
        assert await listed(seams, version="v1", alias="prod") == []


async def test_keys_can_be_chosen(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams)
        await stored(seams)

        assert await listed(seams, keys=frozenset({one.key, 99})) == [one.key]


async def test_a_span_of_acceptance_holds_its_begin_and_not_its_end(storage: Storage) -> None:
    async with storage() as seams:
        one, two, three = [await stored(seams, at=NOW + n) for n in (1, 2, 3)]

        assert await listed(seams, begin=NOW + 2, end=NOW + 3) == [two.key]
        assert await listed(seams, begin=NOW + 3) == [three.key]
        assert await listed(seams, end=NOW + 2) == [one.key]


async def test_keys_under_one_can_be_chosen(storage: Storage) -> None:
    async with storage() as seams:
        one, two, three = [await ended(seams) for _ in range(3)]

        assert await listed(seams, below=three.key) == [two.key, one.key]
        assert await listed(seams, below=one.key) == []


async def test_pages_join_over_all_parts_and_the_count_is_of_all(storage: Storage) -> None:
    async with storage() as seams:
        for _ in range(2):
            await ended(seams)
            await stored(seams)
            await started(seams)
        whole = await listed(seams)

        pages = [await listed(seams, offset=n, limit=4) for n in (0, 4, 8)]
        _, total = await seams.records.list(Selection(function_id=1, offset=5, limit=1))

        assert pages == [whole[:4], whole[4:], []]
        assert total == 6


async def test_those_of_several_functions_come_newest_first_whatever_their_state(storage: Storage) -> None:
    async with storage() as seams:
        running, old, other = await started(seams), await ended(seams, 2), await ended(seams, 3)
        delayed, new = await stored(seams, 2, delayed=True), await ended(seams)
        both = frozenset({1, 2})

        assert await listed(seams, functions=both) == [one.key for one in (new, delayed, old, running)]
        assert await listed(seams, functions=both, states=frozenset({State.WAIT})) == [delayed.key]
        assert await listed(seams, functions=both, states=frozenset({State.RUNNING})) == [running.key]
        assert await listed(seams, functions=frozenset({3}), within=3) == [other.key]
        assert await listed(seams, functions=frozenset({3}), within=2) == []


async def test_no_more_rows_of_a_part_are_looked_at_than_is_said(storage: Storage) -> None:
    async with storage() as seams:
        bad = await started(seams)
        await settled(seams, bad, failure(bad))
        old, new, waiting = await ended(seams), await ended(seams), await stored(seams)

        assert await listed(seams, within=2) == [waiting.key, new.key, old.key]
        assert await listed(seams, within=2, states=frozenset({State.FAIL})) == []
        assert await listed(seams, within=3, states=frozenset({State.FAIL})) == [bad.key]
        assert (await seams.records.list(Selection(function_id=1, within=1, limit=1)))[1] == 2


async def test_whatever_moves_meanwhile_is_in_a_list_exactly_once(storage: Storage) -> None:
    async with storage() as seams:
        rows = [await stored(seams) for _ in range(60)]
        moved = asyncio.ensure_future(move_all(seams, rows))
        lists = []
        while not moved.done():
            lists.append(await listed(seams))
            await asyncio.sleep(0)
        await moved

        assert [(len(one), len(set(one))) for one in lists] == [(60, 60)] * len(lists)


async def move_all(seams: Seams, rows: list[Invocation]) -> None:
    """Start and settle the invocations one after another."""
    for one in rows:
        seams.journal.start(one, one.due_at)
        await seams.journal.ready(1, (0.0, 0), 0, 0)  # waits for the commit
        await settled(seams, one, success(one))


async def test_a_list_leaves_out_what_is_large(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams, payload=b'"large"')
        await settled(seams, one, success(one, result=b"1", log=b"2"))
        [record], _ = await seams.records.list(Selection(function_id=1))

        assert (record.payload, record.result, record.log) == (b"", b"", b"")


async def test_a_whole_record_tells_what_was_asked_for(storage: Storage) -> None:
    async with storage() as seams:
        one = await stored(seams, version="v1", alias="live", source="OBS", priority=4, payload=b"[1]", hops=3)
        record = await seams.records.get(one.key)

        assert record is not None
        assert (record.request_id, record.version, record.alias) == (one.request_id, "v1", "live")
        assert (record.source, record.priority, record.payload, record.hops) == ("OBS", 4, b"[1]", 3)


async def test_of_an_unknown_key_there_is_no_record(storage: Storage) -> None:
    async with storage() as seams:
        assert await seams.records.get(99) is None


# --- purging ------------------------------------------------------------------------------------------------


async def test_what_ended_long_ago_goes_and_the_rest_stays(storage: Storage) -> None:
    async with storage() as seams:
        old, young = await ended(seams, at=NOW), await ended(seams, at=NOW + 500)

        assert await purge(seams, NOW + AGE + 1) == [old.request_id]
        assert await seams.records.get(old.key) is None
        assert await seams.records.get(young.key) is not None


async def test_age_counts_from_the_end(storage: Storage) -> None:
    async with storage() as seams:
        one = await started(seams, at=NOW, due_at=NOW + 500)
        await settled(seams, one, success(one))

        assert await purge(seams, NOW + AGE + 100) == []
        assert await purge(seams, NOW + AGE + 501) == [one.request_id]


async def test_what_has_not_ended_is_never_dropped(storage: Storage) -> None:
    async with storage() as seams:
        await stored(seams, at=NOW)
        await started(seams, at=NOW)
        await stored(seams, at=NOW, delayed=True)

        assert await purge(seams, NOW + 10 * AGE, rows=1, size=1) == []


async def test_what_is_still_owed_is_not_dropped(storage: Storage) -> None:
    async with storage() as seams:
        one = await ended(seams, at=NOW, deliver_to=SINK)
        assert await purge(seams, NOW + 2 * AGE) == []
        [pending], _ = await seams.outbox.due(NOW + 2 * AGE, 10, 10)

        await seams.outbox.delivered(pending)

        assert await purge(seams, NOW + 2 * AGE) == [one.request_id]


async def test_an_undeliverable_debt_goes_with_its_invocation(storage: Storage) -> None:
    async with storage() as seams:
        one = await ended(seams, at=NOW, deliver_to=SINK)
        [pending], _ = await seams.outbox.due(NOW + AGE, 10, 10)
        await seams.outbox.postpone(pending, None, "no")

        assert await purge(seams, NOW + 2 * AGE) == [one.request_id]


async def test_beyond_the_cap_of_rows_the_oldest_go(storage: Storage) -> None:
    async with storage() as seams:
        rows = [await ended(seams, at=NOW + n) for n in range(5)]

        assert await purge(seams, NOW + 10, rows=2) == [one.request_id for one in rows[:3]]


async def test_beyond_the_cap_of_bytes_the_oldest_go(storage: Storage) -> None:
    async with storage() as seams:
        rows = []
        for n in range(5):
            one = await started(seams, at=NOW + n, payload=b"x" * 40)
            await settled(seams, one, success(one, result=b"y" * 60))
            rows.append(one)

        assert await purge(seams, NOW + 10, size=200) == [one.request_id for one in rows[:3]]
        assert (await seams.journal.recover()).backlog[0] == (2, 200)


async def test_a_purge_says_when_the_next_will_be_too_old(storage: Storage) -> None:
    async with storage() as seams:
        one = await ended(seams, at=NOW)
        step = await seams.records.purge(NOW + 10, age=AGE, rows=MANY, size=MANY)

        assert step.next_due is not None
        assert abs(step.next_due - (one.due_at + 1 + AGE)) <= 1.0


async def test_many_rows_are_purged_in_steps(storage: Storage) -> None:
    async with storage() as seams:
        rows = [made(seams, at=NOW) for _ in range(450)]
        for one in rows:
            appended = seams.journal.append(one)
        await appended
        for one in rows:
            await seams.journal.cancel(one.key, cancelled(NOW))

        assert sorted(await purge(seams, NOW + AGE + 1)) == sorted(one.request_id for one in rows)
