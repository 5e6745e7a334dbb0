"""Pages of pending deliveries on disk: each reads a bounded number of rows, found by their ids."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.protocols import DeliveryFilter
from engine.storage.sqlite import outbox
from tests.contracts.storage import KINDS, SINK, ended


async def test_a_page_that_has_read_enough_rows_ends_early_with_the_place_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "ROWS_SCANNED", 3)
    async with KINDS["sqlite"](tmp_path)() as storage:
        for function_id in (1, *[2] * 6, 1):
            await ended(storage, function_id, deliver_to=SINK)
        pages: list[tuple[list[int], int]] = []
        after = 0
        while not pages or after:
            found, after = await storage.outbox.page(DeliveryFilter(functions=[1]), after, 10)
            pages.append(([one.delivery_id for one in found], after))

    assert pages == [([1], 3), ([], 6), ([8], 0)]


async def test_counts_go_on_where_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ROWS_SCANNED", 3)
    async with KINDS["sqlite"](tmp_path)() as storage:
        for function_id in (1, 1, 2, 1):
            await ended(storage, function_id, deliver_to=SINK)
        first, after = await storage.outbox.counts([1, 2], 0)
        second, end = await storage.outbox.counts([1, 2], after)

    assert [[(one.function_id, one.count) for one in part] for part in (first, second)] == [[(1, 2), (2, 1)], [(1, 1)]]
    assert (after, end) == (3, 0)


async def test_pages_and_rows_made_due_are_found_by_their_ids_and_nothing_is_sorted(tmp_path: Path) -> None:
    async with KINDS["sqlite"](tmp_path)():
        pass
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        sql, values = outbox.page(DeliveryFilter(functions=[1, 2], destination=SINK))
        page = plan(database, sql, 0, 100, *values, 10)
        looked_at = plan(database, outbox.SCANNED_UNTIL, 0, 100)
        revived = plan(database, outbox.revival(2, 2), 0.0, 0.0, 1, 2, 3, 4)
        removed = plan(database, outbox.removal(2, 2), 1, 2, 3, 4)

    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in page
    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid>?)" in looked_at
    assert "SEARCH owed USING INTEGER PRIMARY KEY (rowid=?)" in revived
    steps = (*page, *looked_at, *revived, *removed)
    assert [step for step in steps if "SCAN owed" in step or "TEMP B-TREE" in step] == []


def plan(database: sqlite3.Connection, sql: str, *values: object) -> list[str]:
    return [detail for *_, detail in database.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
