"""Reads for people beside the writer, and pages of pending deliveries, found by their indexes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.protocols import DeliveryFilter, Selection, Storage
from engine.storage import StorageOptions
from engine.storage.sqlite import outbox, record_search
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.database import open_storage
from tests.support.damage import kept, storing
from tests.support.storages import KINDS, SINK, ended

LOOKS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "records": lambda storage: storage.records.list(Selection(function_id=1)),
    "record": lambda storage: storage.records.get(1),
    "given up": lambda storage: storage.outbox.given_up([1], 0, 10),
    "pending": lambda storage: storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_a_look_at_the_journal_and_a_commit_do_not_wait_for_each_other(tmp_path: Path, look: str) -> None:
    looked = threading.Event()
    async with open_storage(StorageOptions(directory=tmp_path)) as storage:
        commit = asyncio.ensure_future(storage.writer.call(lambda db: looked.wait(30)))
        await LOOKS[look](storage)
        looked.set()

        assert await commit


# --- connections that cannot be opened -----------------------------------------------------------------------


async def test_a_database_that_cannot_be_opened_for_reading_is_unavailable(tmp_path: Path) -> None:
    readers = Readers(tmp_path / "missing.db", Damage(tmp_path))

    with pytest.raises(Unavailable, match="the journal cannot be opened for reading: unable to open database file"):
        await readers.call(lambda database: None)


async def test_the_thread_of_a_connection_that_cannot_be_opened_has_ended(tmp_path: Path) -> None:
    """A thread that is left would answer to an event loop that may be closed by then."""
    for _ in range(20):
        before = set(threading.enumerate())
        with pytest.raises(sqlite3.OperationalError):
            async with connected(tmp_path / "no" / "folder.db"):
                pass

        assert not {thread.name for thread in set(threading.enumerate()) - before if "worker_thread" in thread.name}


# --- a slow disk ---------------------------------------------------------------------------------------------


async def test_a_step_without_time_passes_empty_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_search, "BUDGET", 0.0)
    data = await kept(tmp_path, 20)  # none runs, so the first part of the list is empty
    async with storing(tmp_path) as storage:
        first = await storage.records.search(Selection(function_id=1), None, 40)
        assert first.last is not None
        rest = await storage.records.search(Selection(function_id=1), first.last, 40)

    assert [record.key for record in first.records] == data.keys(1)
    assert (rest.records, rest.more) == ((), False)


# --- pages of deliveries -------------------------------------------------------------------------------------


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
            pages.append(([delivery.delivery_id for delivery in found], after))

    assert pages == [([1], 3), ([], 6), ([8], 0)]


async def test_counts_go_on_where_they_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ROWS_SCANNED", 3)
    async with KINDS["sqlite"](tmp_path)() as storage:
        for function_id in (1, 1, 2, 1):
            await ended(storage, function_id, deliver_to=SINK)
        first, after = await storage.outbox.counts([1, 2], 0)
        second, end = await storage.outbox.counts([1, 2], after)

    assert [[(row.function_id, row.count) for row in part] for part in (first, second)] == [[(1, 2), (2, 1)], [(1, 1)]]
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
