"""Database file ``journal.db``: its schema, its writing connection, and the storage on it.

The writing connection is opened before all other connections to the file and closed after them. The other connections
are read-only and short-lived.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path

import aiosqlite
import anyio

from engine.errors import DataDirectoryUnusable
from engine.model.identity import NODE_BITS, Identity
from engine.storage.data_directory import Ballast
from engine.storage.options import StorageOptions
from engine.storage.single_engine import SingleEngine
from engine.storage.sqlite.batch import WritingConnection
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.ownership import APPLICATION_ID, check_journal
from engine.storage.sqlite.storage import SQLiteStorage
from engine.storage.sqlite.writer import Writer

# Run before all other statements, so that a new file is either empty or has the application id.
_MARK = f"""
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA application_id = {APPLICATION_ID};
"""
# Some builds of SQLite enable secure_delete, which would overwrite every page that pruning frees.
_PRAGMAS = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA busy_timeout = 5000;
PRAGMA wal_autocheckpoint = 2000;
PRAGMA journal_size_limit = 67108864;
PRAGMA cache_size = -16384;
PRAGMA temp_store = MEMORY;
PRAGMA secure_delete = OFF;
"""


@asynccontextmanager
async def open_sqlite(options: StorageOptions, *, packages_of: str | None = None) -> AsyncIterator[SQLiteStorage]:
    """Open the journal of a directory, migrate its schema, and run its writer until the block has ended.

    See ``engine.storage.open_storage``, and ``check_journal`` for ``packages_of``.
    """
    path, cluster = options.directory / "journal.db", SingleEngine()
    reserve = Ballast(options.directory, options.ballast)
    await anyio.to_thread.run_sync(check_journal, path, packages_of)
    async with connected(path, factory=WritingConnection, cached_statements=256) as database:
        node, last_key = await _prepare(database, path)
        writer = Writer(database, make_room=reserve.give_up, on_recovered=reserve.take)
        await anyio.to_thread.run_sync(reserve.take)
        identity = Identity(node, last_key, cluster.slot)
        async with anyio.create_task_group() as tasks:
            # Not ``await start``: cancellation during it would wait for the writer, which only ``close`` ends.
            tasks.start_soon(writer.run)
            try:
                retention = options.idempotency_retention
                yield SQLiteStorage(writer, Readers(path), identity, cluster, idempotency_retention=retention)
            finally:
                writer.close()


async def _prepare(database: aiosqlite.Connection, path: Path) -> tuple[int, int]:
    """Set pragmas and migrate the schema. Return the node number and the largest invocation key in use."""
    try:
        [[application]] = await database.execute_fetchall("PRAGMA application_id")
        if application != APPLICATION_ID:
            await database.executescript(_MARK)
        await database.executescript(_PRAGMAS)
        await _migrate(database, path)
        await database.execute("INSERT OR IGNORE INTO meta VALUES ('node', ?)", (secrets.randbits(NODE_BITS),))
        [[node]] = await database.execute_fetchall("SELECT value FROM meta WHERE name = 'node'")
        [[last_key]] = await database.execute_fetchall("SELECT coalesce(max(key), 0) FROM invocation")
    except sqlite3.DatabaseError as error:
        raise DataDirectoryUnusable(str(path), f"cannot be opened: {error}") from error
    return node, last_key


async def _migrate(database: aiosqlite.Connection, path: Path) -> None:
    """Apply all migrations that are newer than the schema version of the database.

    Each migration and the new version number are stored in one transaction. Raises DataDirectoryUnusable if the schema
    is newer than the last migration of this engine.
    """
    [[version]] = await database.execute_fetchall("PRAGMA user_version")
    scripts = sorted((f for f in files("engine.storage.sqlite").joinpath("migrations").iterdir()), key=lambda f: f.name)
    numbered = [(int(script.name[:4]), script) for script in scripts if script.name.endswith(".sql")]
    if version > numbered[-1][0]:
        problem = f"was written by a newer functiond (schema {version}); start that version or a newer one"
        raise DataDirectoryUnusable(str(path), problem)
    for number, script in numbered:
        if number > version:
            sql = script.read_text()
            await database.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
