"""Connections to the SQLite database. Each is closed even if the task that opened it is cancelled."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import anyio
import anyio.to_thread

T = TypeVar("T")

#: Largest number of concurrent read connections, each with its own thread.
READERS = 8


class Readers:
    """Opener of read-only connections for queries of the API and the console. Commits do not wait for these queries."""

    def __init__(self, path: Path) -> None:
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._limit = anyio.CapacityLimiter(READERS)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[aiosqlite.Connection]:
        """Open a connection that reads one consistent snapshot.

        The caller should close the connection soon, because the write-ahead log cannot shrink while a snapshot is open.
        """
        async with self._limit, connected(self._uri, uri=True, timeout=5.0) as database:
            await database.execute("BEGIN")
            yield database

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of a function, called in a thread of its own with a connection that only reads."""

        def call() -> T:
            with closing(sqlite3.connect(self._uri, uri=True, timeout=5.0, isolation_level=None)) as database:
                return function(database)

        async with self._limit:
            return await anyio.to_thread.run_sync(call)


@asynccontextmanager
async def connected(database: Path | str, **options: Any) -> AsyncIterator[aiosqlite.Connection]:
    """Open a connection for the duration of the block. ``options`` are passed to ``sqlite3.connect``.

    If the caller is cancelled during the opening, the new connection is still closed. A cancelled ``aiosqlite.connect``
    alone would leak a thread and an open file.
    """
    connection = await _connect(database, options)
    try:
        yield connection
    finally:
        with anyio.CancelScope(shield=True):
            await connection.close()


async def _connect(database: Path | str, options: dict[str, Any]) -> aiosqlite.Connection:
    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(database, isolation_level=None, **options)

    opening = asyncio.ensure_future(connect())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await (await opening).close()
        raise
