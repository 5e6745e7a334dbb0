"""Searches and counts leave out the rows on a damaged page, and read rows that are not UTF-8."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.protocols import Count, Place, Records, Selection
from tests.contracts.storage import settled, success
from tests.support.damage import ROWS, kept, ranges, storing


async def test_newest_logs_leave_out_those_on_a_damaged_page(tmp_path: Path) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        log = b"x" * 50
        await asyncio.gather(*(settled(storage, each, success(each, log=log)) for each in data.invocations))
    own = [each.key for each in data.invocations if each.function_id == 1]
    unread, lost = data.smash("result", 0), data.smash("invocation", 1)

    async with storing(tmp_path) as storage:
        logs = {one.key: one.log for one in await storage.records.newest_logs(1, ROWS)}

    assert list(logs) == [key for key in own[::-1] if key not in lost]
    assert {key for key, log in logs.items() if not log} == {*unread} & {*logs}
    assert any(logs.values())


async def searched(records: Records, selection: Selection) -> list[int]:
    found, start, more = list[int](), None, True
    while more:
        step = await records.search(selection, start, 40)
        found += [one.key for one in step.records]
        start, more = next_place(step.last, start), step.more
    return found


def next_place(last: Place | None, start: Place | None) -> Place | None:
    return start if last is None else last


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("functions", [frozenset[int](), frozenset({1, 2})])
async def test_a_search_leaves_out_the_rows_on_a_damaged_page(
    tmp_path: Path, functions: frozenset[int], ended: bool
) -> None:
    data = await kept(tmp_path)
    async with storing(tmp_path) as storage:
        if ended:
            await asyncio.gather(*(settled(storage, each, success(each)) for each in data.invocations))
    lost = data.smash("invocation", 1)
    newest = [each.key for each in data.invocations if functions or each.function_id == 1]
    expected = [key for key in (newest[::-1] if functions or ended else newest) if key not in lost]
    selection = Selection(function_id=0 if functions else 1, functions=functions)

    for _ in range(2):  # the second time, the rows are noted
        async with storing(tmp_path) as storage:
            assert await searched(storage.records, selection) == expected
            assert await storage.records.count(selection, ROWS) == Count(rows=len(expected))
            assert ranges(storage) == {"invocation": (lost[0], lost[-1])}


async def test_a_search_finds_undecodable_rows(tmp_path: Path) -> None:
    data = await kept(tmp_path, 20)
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database, database:
        sql = "UPDATE invocation SET version = CAST(x'ff' AS TEXT) WHERE key = ?"
        database.execute(sql, (data.invocations[4].key,))

    async with storing(tmp_path) as storage:
        assert await searched(storage.records, Selection(function_id=1)) == data.keys(1)
        assert ranges(storage) == {}
