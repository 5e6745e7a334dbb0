"""Database file ``journal.db``: its schema, its writing connection, and the storage on it.

The writing connection is opened before all other connections to the file and closed after them. The other connections
are read-only and short-lived.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import aiosqlite
import anyio

from engine.errors import RESTORE, DataDirectoryUnusable, DiskFailing, recover
from engine.errors.files import file_errors
from engine.model.identity import NODE_BITS, Identity
from engine.storage.data_directory import Ballast, fsync_folder
from engine.storage.options import StorageOptions
from engine.storage.single_engine import SingleEngine
from engine.storage.sqlite.batch import Visit, WritingConnection
from engine.storage.sqlite.checkpoints import Checkpoints
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.ownership import APPLICATION_ID, check_journal, not_opened
from engine.storage.sqlite.row_sums import add_sums
from engine.storage.sqlite.start_check import check_start
from engine.storage.sqlite.storage import SQLiteStorage
from engine.storage.sqlite.writer import Writer

# Run before all other statements, so that a new file is either empty or has the application id.
MARK = f"""
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
    damage = Damage(options.directory)
    async with _opened(path, packages_of, reserve, damage) as (database, checkpoints):
        if not options.durable:
            await database.execute("PRAGMA synchronous = OFF")
        node, last_key = await _identity(database, path)
        writer = Writer(database, checkpoints=checkpoints, make_room=reserve.give_up, on_recovered=reserve.take)
        await anyio.to_thread.run_sync(reserve.take)
        identity = Identity(node, last_key, cluster.slot)
        async with anyio.create_task_group() as tasks:
            # Not ``await start``: cancellation during it would wait for the writer, which only ``close`` ends.
            tasks.start_soon(writer.run)
            try:
                yield SQLiteStorage(writer, Readers(path, damage), identity, cluster, options=options, damage=damage)
            finally:
                writer.close()


@asynccontextmanager
async def _opened(
    path: Path, packages_of: str | None, reserve: Ballast, damage: Damage
) -> AsyncIterator[tuple[aiosqlite.Connection, Checkpoints]]:
    """Open the writing connection to a journal with the current schema, and take over its checkpoints.

    If the disk is full, ``reserve`` is given up. If it fails although little space was free before, a second try
    follows. A second try also follows other errors, because SQLite takes a page for damaged if its read failed once.
    """
    await anyio.to_thread.run_sync(reserve.give_up_if_full)
    async with AsyncExitStack() as stack:
        try:
            opened = await _open(stack, path, packages_of, damage)
        except DataDirectoryUnusable as error:
            if isinstance(error, DiskFailing) and not await anyio.to_thread.run_sync(reserve.give_up):
                raise
            await stack.aclose()
            opened = await _open(stack, path, packages_of, damage)
        yield opened


async def _open(
    stack: AsyncExitStack, path: Path, packages_of: str | None, damage: Damage
) -> tuple[aiosqlite.Connection, Checkpoints]:
    await anyio.to_thread.run_sync(check_journal, path, packages_of)
    checkpoints = stack.enter_context(Checkpoints(path))  # closed after the connection
    try:
        factory = partial(WritingConnection, damaged=damage.met)
        opening = connected(path, factory=factory, cached_statements=256)
        database = await stack.enter_async_context(opening)
        await database.execute_fetchall("PRAGMA schema_version")  # rolls back a first start that was interrupted
        await anyio.to_thread.run_sync(checkpoints.hold)
        stack.callback(checkpoints.release)
        await _prepare(database, path)
        await anyio.to_thread.run_sync(checkpoints.hold)
        with file_errors(path):
            await anyio.to_thread.run_sync(_sync, path)
            if checkpoints.watch():
                await database.execute("PRAGMA wal_autocheckpoint = 0")
                await database.executemany("", Visit(checkpoints.begin))
    except sqlite3.DatabaseError as error:
        raise not_opened(path, error) from error
    return database, checkpoints


async def _prepare(database: aiosqlite.Connection, path: Path) -> None:
    """Set pragmas, migrate the schema, and check the tables that each start needs."""
    [[application]] = await database.execute_fetchall("PRAGMA application_id")
    if application != APPLICATION_ID:
        await database.executescript(MARK)
    await database.executescript(_PRAGMAS)
    await _migrate(database, path)
    await _check_schema(database, path)
    await database.executemany("", Visit(add_sums))
    visit = Visit(check_start)
    await database.executemany("", visit)
    if visit.value:
        raise DataDirectoryUnusable(str(path), f"{visit.value}; {recover(path.parent)}")
    await database.execute("INSERT OR IGNORE INTO meta VALUES ('node', ?)", (secrets.randbits(NODE_BITS),))


async def _identity(database: aiosqlite.Connection, path: Path) -> tuple[int, int]:
    """Return the node number and the largest invocation key in use."""
    try:
        [[node]] = await database.execute_fetchall("SELECT value FROM meta WHERE name = 'node'")
        [[last_key]] = await database.execute_fetchall("SELECT coalesce(max(key), 0) FROM invocation")
    except sqlite3.DatabaseError as error:
        raise not_opened(path, error) from error
    return node, last_key


def _sync(path: Path) -> None:
    """Sync the write-ahead log and the names in the data directory to disk.

    A killed engine may have left a commit in the log that is not synced. The commit is visible from now on, so it must
    not vanish any more. Closing the log's file is safe: SQLite holds no locks on it, unlike on its other files.
    """
    with suppress(FileNotFoundError):
        descriptor = os.open(f"{path.resolve()}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_folder(path.parent)


async def _check_schema(database: aiosqlite.Connection, path: Path) -> None:
    """Raise DataDirectoryUnusable if a table or index is missing. ``path`` is the file of the database."""
    names = "SELECT type || ' ' || name FROM sqlite_schema"
    with closing(sqlite3.connect(":memory:")) as model:
        for _, script in scripts():
            model.executescript(script.read_text())
        expected = {name for [name] in model.execute(names)}
    missing = expected - {name for [name] in await database.execute_fetchall(names)}
    if missing:
        raise DataDirectoryUnusable(str(path), f"damaged, without {', '.join(sorted(missing))}; {RESTORE}")


def scripts() -> list[tuple[int, Traversable]]:
    """Return the migrations with their numbers, in their order."""
    found = sorted((f for f in files("engine.storage.sqlite").joinpath("migrations").iterdir()), key=lambda f: f.name)
    return [(int(script.name[:4]), script) for script in found if script.name.endswith(".sql")]


async def _migrate(database: aiosqlite.Connection, path: Path) -> None:
    """Apply all migrations that are newer than the schema version of the database.

    Each migration and the new version number are stored in one transaction. Raises DataDirectoryUnusable if the schema
    is newer than the last migration of this engine.
    """
    [[version]] = await database.execute_fetchall("PRAGMA user_version")
    numbered = scripts()
    if version > numbered[-1][0]:
        problem = f"was written by a newer functiond (schema {version}); start that version or a newer one"
        raise DataDirectoryUnusable(str(path), problem)
    for number, script in numbered:
        if number > version:
            sql = script.read_text()
            await database.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
