"""Connections that only read, and connections whose opening fails."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from engine.errors import Unavailable
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.damage import Damage


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
