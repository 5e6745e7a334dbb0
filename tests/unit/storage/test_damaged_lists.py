"""Lists and counts leave out the rows behind a damaged page, and have all others."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.model import DestinationSpec, State
from engine.protocols import DeliveryFilter, Selection, Settlement
from tests.contracts.storage import NOW, settled, success
from tests.support.damage import ROWS, StoredRows, kept, ranges, storing

SINK = DestinationSpec(destination="TEST", param='{"a": "' + "x" * 50 + '"}')


async def filled(folder: Path, kind: str) -> StoredRows:
    """Return a directory with invocations that are ready, delayed, running or ended."""
    data = await kept(folder, delayed=kind == "delayed", version="v1")
    async with storing(folder) as storage:
        if kind == "running":
            for each in data.invocations:
                storage.journal.start(each, NOW)
        elif kind == "ended":
            await asyncio.gather(*(settled(storage, each, success(each)) for each in data.invocations))
    return data


@pytest.mark.parametrize("kind", ["ready", "delayed", "running", "ended"])
@pytest.mark.parametrize("leaf", [0, 1])
async def test_the_list_of_a_function_leaves_out_the_rows_on_a_damaged_page(
    tmp_path: Path, kind: str, leaf: int
) -> None:
    data = await filled(tmp_path, kind)
    lost = data.smash("invocation", leaf)
    expected = data.keys(1, lost)
    assert len(expected) < len(data.keys(1))
    if kind == "ended":
        expected.reverse()

    for _ in range(2):  # the second time, the rows are noted
        async with storing(tmp_path) as storage:
            found, total = await storage.records.list(Selection(function_id=1, limit=ROWS))
            assert ([one.key for one in found], total) == (expected, len(expected))
            page, total = await storage.records.list(Selection(function_id=1, offset=40, limit=5))
            assert ([one.key for one in page], total) == (expected[40:45], len(expected))
            assert ranges(storage) == {"invocation": (lost[0], lost[-1])}


async def test_filters_of_a_list_go_on_beside_a_damaged_page(tmp_path: Path) -> None:
    data = await kept(tmp_path, at=None)  # each a second after the one before
    async with storing(tmp_path) as storage:
        for each in data.invocations[:50]:
            storage.journal.settle(Settlement(invocation=each, state=State.FAIL, outcome=success(each)))
    lost = data.smash("invocation")
    ended = [each.key for each in data.invocations[:50] if each.function_id == 1 and each.key not in lost]
    late = [each for each in data.invocations if each.function_id == 1][40]

    async def listed(**fields: Any) -> list[int]:
        found, total = await storage.records.list(Selection(function_id=1, limit=ROWS, **fields))
        assert total == len(found)
        return [one.key for one in found]

    async with storing(tmp_path) as storage:
        assert await listed(states=frozenset({State.FAIL})) == ended[::-1]
        assert await listed(states=frozenset({State.SUCCESS})) == []
        assert await listed(version="no such version") == []
        assert await listed(keys=frozenset({lost[0], ended[0]})) == [ended[0]]
        assert await listed(begin=late.accepted_at) == [key for key in data.keys(1, lost) if key >= late.key]


@pytest.mark.parametrize("kind", ["ready", "delayed", "running", "ended"])
@pytest.mark.parametrize("within", [0, 100])
async def test_a_list_of_several_functions_leaves_out_the_rows_on_a_damaged_page(
    tmp_path: Path, kind: str, within: int
) -> None:
    data = await filled(tmp_path, kind)
    lost = data.smash("invocation", -2)
    newest = [each.key for each in reversed(data.invocations)][: within or ROWS]
    expected = [key for key in newest if key not in lost]
    states = frozenset({State.RUNNING}) if kind == "running" else frozenset[State]()
    selection = Selection(functions=frozenset({1, 2}), states=states, within=within, limit=ROWS)

    async with storing(tmp_path) as storage:
        found, total = await storage.records.list(selection)

        assert ([one.key for one in found], total) == (expected, len(expected))
        assert ranges(storage) == {"invocation": (lost[0], lost[-1])}


async def test_a_list_has_undecodable_rows(tmp_path: Path) -> None:
    data = await kept(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        sql = "UPDATE invocation SET version = CAST(x'ff' AS TEXT) WHERE key = ?"
        database.execute(sql, (data.invocations[4].key,))

    async with storing(tmp_path) as storage:
        found, total = await storage.records.list(Selection(function_id=1))
        assert ([one.key for one in found], total) == (data.keys(1), 10)


@pytest.mark.parametrize("kind", ["ready", "delayed", "running", "ended"])
async def test_a_list_that_meets_a_damaged_index_is_refused_until_the_next_start_rebuilds_it(
    tmp_path: Path, kind: str
) -> None:
    data = await filled(tmp_path, kind)
    index = "finished" if kind == "ended" else kind
    file = data.file
    for page in data.leaves(index):
        file.smash(page)

    async with storing(tmp_path) as storage:
        with pytest.raises(Unavailable, match="an index of the invocations is damaged; restart the engine"):
            await storage.records.list(Selection(function_id=1))
        assert ranges(storage) == {index: (0, 0)}
    async with storing(tmp_path) as storage:
        _, total = await storage.records.list(Selection(function_id=1))
        assert (total, ranges(storage)) == (ROWS // 2, {})


async def test_a_list_of_deliveries_that_meets_a_damaged_index_is_refused_until_the_next_start_rebuilds_it(
    tmp_path: Path,
) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=SINK) for each in data.invocations))
        for pending in (await storage.outbox.due(NOW + 100, ROWS, ROWS))[0]:
            await storage.outbox.postpone(pending, None, "refused")
    file = data.file
    for page in data.leaves("owed_given_up"):
        file.smash(page)

    async with storing(tmp_path) as storage:
        with pytest.raises(Unavailable, match="an index of the deliveries is damaged; restart the engine"):
            await storage.outbox.given_up([1, 2], 0, 50)
        assert ranges(storage) == {"owed_given_up": (0, 0)}
    async with storing(tmp_path) as storage:
        _, count = await storage.outbox.given_up([1, 2], 0, 50)
        assert (count, ranges(storage)) == (ROWS, {})


@pytest.mark.parametrize("given_up", [False, True])
async def test_lists_of_deliveries_leave_out_the_rows_on_a_damaged_page(tmp_path: Path, given_up: bool) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        await asyncio.gather(*(settled(storage, each, success(each), deliver_to=SINK) for each in data.invocations))
        for pending in (await storage.outbox.due(NOW + 100, ROWS, ROWS))[0] if given_up else ():
            await storage.outbox.postpone(pending, None, "refused")
    lost = data.smash("owed")
    left = [number for number in range(1, ROWS + 1) if number not in lost]

    async with storing(tmp_path) as storage:
        if given_up:
            found, count = await storage.outbox.given_up([1, 2], 3, 50)
            assert ([one.delivery_id for one in found], count) == (left[3:53], len(left))
        else:
            found, after = await storage.outbox.page(DeliveryFilter(functions=[1, 2]), 3, 50)
            expected = [number for number in left if number > 3][:50]
            assert ([one.delivery_id for one in found], after) == (expected, expected[-1])
        numbers = {key: number for number, key in rows_by_delivery(tmp_path, left)}
        for each in data.invocations[:60]:
            of_key = [one.delivery_id for one in await storage.outbox.deliveries_of(each.key)]
            assert of_key == ([numbers[each.key]] if each.key in numbers else [])
        revived = await storage.outbox.revive([1, 2], range(1, ROWS + 1), NOW)
        assert {one.delivery_id for one in revived} <= {*left}
        assert len(revived) >= len(left) - 2 * len(lost)  # a row beside the page may have no room to grow
        assert ranges(storage).keys() == {"owed"}
        assert storage.statistics().failure == ""


def rows_by_delivery(folder: Path, ids: list[int]) -> list[tuple[int, int]]:
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        sql = "SELECT owed_id, key FROM owed WHERE owed_id = ?"
        return [database.execute(sql, (number,)).fetchone() for number in ids]
