"""Reads for people, which run beside the writer, and connections that cannot be opened."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Unavailable
from engine.protocols import DeliveryFilter, Selection, Storage
from engine.storage import StorageOptions
from engine.storage.sqlite import record_search
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.database import open_sqlite
from tests.support.damage import kept, storing

LOOKS: dict[str, Callable[[Storage], Awaitable[Any]]] = {
    "records": lambda storage: storage.records.list(Selection(function_id=1)),
    "record": lambda storage: storage.records.get(1),
    "given up": lambda storage: storage.outbox.given_up([1], 0, 10),
    "pending": lambda storage: storage.outbox.page(DeliveryFilter(functions=[1]), 0, 10),
}


@pytest.mark.parametrize("look", LOOKS)
async def test_a_look_at_the_journal_and_a_commit_do_not_wait_for_each_other(tmp_path: Path, look: str) -> None:
    looked = threading.Event()
    async with open_sqlite(StorageOptions(directory=tmp_path)) as storage:
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

        assert not {one.name for one in set(threading.enumerate()) - before if "worker_thread" in one.name}


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
