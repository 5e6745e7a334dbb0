"""Connections to the SQLite database. Each is closed even if the task that opened it is cancelled."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import anyio
import anyio.to_thread

from engine.errors import DataDirectoryUnusable, DiskFailing, Unavailable, recover
from engine.errors.files import unusable
from engine.isolation.machine import free_space
from engine.storage.sqlite.damage import Damage, is_damage

T = TypeVar("T")

#: Largest number of concurrent read connections, each with its own thread.
READERS = 8


class Readers:
    """Opener of read-only connections for queries of the API and the console. Commits do not wait for these queries.

    A query that meets a damaged page raises PageDamaged.
    """

    def __init__(self, path: Path, damage: Damage) -> None:
        self._damage = damage
        self._uri = f"{path.absolute().as_uri()}?mode=ro"
        self._limit = anyio.CapacityLimiter(READERS)

    async def call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return the result of a function, called in a thread of its own with a connection that reads one snapshot.

        The function should end soon, because the write-ahead log cannot shrink while a snapshot is open. Raises
        Unavailable if the connection cannot be opened.
        """
        return await anyio.to_thread.run_sync(self._call, function, limiter=self._limit)

    def _call(self, function: Callable[[sqlite3.Connection], T]) -> T:
        try:
            opened = sqlite3.connect(self._uri, uri=True, timeout=5.0, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"the journal cannot be opened for reading: {error}") from error
        with closing(opened) as database:
            try:
                database.execute("BEGIN")
                return function(database)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                raise self._damage.met(error) from error


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
        connection = aiosqlite.connect(database, isolation_level=None, **options)
        try:
            return await connection
        except sqlite3.Error:
            # The thread still answers to the loop that it stops, so the loop must not be closed before.
            await anyio.to_thread.run_sync(connection._thread.join)
            raise

    opening = asyncio.ensure_future(connect())
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            await (await opening).close()
        raise


#: Free bytes below which a failed write is taken for a full disk. SQLite reports some of them as I/O errors.
_FULL = 1 << 16


def not_opened(path: Path, error: sqlite3.Error) -> DataDirectoryUnusable:
    """Return the error for a database that SQLite cannot open, read or write at the start."""
    code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
    reason = f"cannot be opened: {error} ({getattr(error, 'sqlite_errorname', 'no code')})"
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and free_space(path.parent) < _FULL):
        return unusable(path, OSError(errno.ENOSPC, reason))
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM):
        return unusable(path, OSError(errno.EIO, reason))
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return unusable(path, OSError(errno.EROFS, reason))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return DiskFailing(str(path), f"{reason}; stop the program that uses it, then start the engine again")
    return DataDirectoryUnusable(str(path), f"{reason}; {recover(path.parent)}")
