"""Damaged pages beside invocations with ordering keys."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.model import Invocation, State
from tests.contracts.storage import NOW, ROOM, settled, stored, success
from tests.support.damage import ROWS, StoredRows, ranges, storing


async def test_a_held_row_on_a_damaged_page_stops_neither_its_predecessor_nor_its_successor(tmp_path: Path) -> None:
    async with storing(tmp_path) as storage:
        ordered = list[Invocation]()
        for _ in range(3):
            ordered.append(await stored(storage, ordering_key="a", payload=b"%0200d" % 7))
            await asyncio.gather(*(stored(storage, 2, payload=b"%0200d" % 7) for _ in range(ROWS)))
    data = StoredRows(tmp_path, ordered)
    first, lost, last = ordered
    [leaf] = [number for number, page in enumerate(data.leaves("invocation")) if lost.key in page.keys]
    data.smash("invocation", leaf)

    async with storing(tmp_path) as storage:
        await settled(storage, first, success(first))
        promoted, _ = await storage.window.promote(NOW + 1e6, ROWS, ROOM)

        assert [one.key for one in promoted if one.function_id == 1] == [last.key]
        assert ranges(storage)["invocation"][0] <= lost.key <= ranges(storage)["invocation"][1]
        record = await storage.records.get(first.key)
        assert record is not None
        assert record.state is State.SUCCESS
