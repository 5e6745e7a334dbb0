"""Data directory: its lock, its schema, the writing connection, and a ballast file for a full disk.

    journal.db  lock  ballast  code/  logs/  tmp/

The locked file ``lock`` excludes a second engine; the kernel unlocks it when the engine's process exits. The writing
connection is opened before all other connections to ``journal.db`` and closed after them. The other connections are
read-only and short-lived. The ballast file reserves disk space, which its deletion frees for settlement and pruning.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.resources import files
from pathlib import Path

import aiosqlite
import anyio
from msgspec import Struct

from engine.errors import DataDirectoryLocked, DataDirectoryUnusable
from engine.model.identity import NODE_BITS, Identity
from engine.storage.sqlite.batch import WritingConnection
from engine.storage.sqlite.catalog_store import SQLiteCatalogStore
from engine.storage.sqlite.connection import Readers, connected
from engine.storage.sqlite.cursors import SQLiteCursors
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.outbox import SQLiteOutbox
from engine.storage.sqlite.ownership import APPLICATION_ID, check_journal
from engine.storage.sqlite.records import SQLiteRecords
from engine.storage.sqlite.resource_store import SQLiteResourceStore
from engine.storage.sqlite.store import SQLiteStore
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


class Storage(Struct, frozen=True, kw_only=True):
    """Implementations of all storage protocols for one data directory. Writes need the running task ``writer.run``."""

    path: Path
    writer: Writer
    identity: Identity
    journal: SQLiteJournal
    records: SQLiteRecords
    outbox: SQLiteOutbox
    catalog: SQLiteCatalogStore
    resources: SQLiteResourceStore
    cursors: SQLiteCursors

    def store(self, plugin: str) -> SQLiteStore:
        """Return the store for the durable tables of the named plugin."""
        return SQLiteStore(self.writer, plugin)

    @property
    def marker(self) -> str:
        """Name of the data directory, unique on this host. Identifies the processes and cgroups of its engines.

        It is in the names of the cgroups, and in an environment variable of the processes.

        The name includes device and inode of the directory, which survive a move within the file system. A copy of the
        directory has another name, so that an engine on the copy does not end processes of the original.
        """
        stat = self.path.stat()
        return f"{self.identity.name}-{stat.st_dev:x}-{stat.st_ino:x}"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Create the data directory if needed, and lock it until the block ends or the process exits.

    Raises DataDirectoryLocked if another engine holds the lock, and DataDirectoryUnusable if the directory cannot be
    created or opened.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirectoryUnusable(str(directory), f"cannot be used: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 20).decode(errors="replace").strip()
            raise DataDirectoryLocked(str(directory), int(owner) if owner.isdigit() else None) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def open_storage(
    directory: Path, *, idempotency_retention: float = 86_400.0, ballast: int = 0, packages_of: str | None = None
) -> AsyncIterator[Storage]:
    """Open the journal of a directory that the caller has ``locked``, migrate its schema, and yield the storage.

    ``idempotency_retention`` is the number of seconds for which idempotency keys are stored. ``ballast`` is the size of
    the ballast file in bytes. ``packages_of`` is the journal's name stored with the code packages (see
    ``check_journal``).

    Raises DataDirectoryUnusable if the journal cannot be opened, was written by a newer schema, belongs to another
    program, or does not belong to the code packages.
    """
    path = directory / "journal.db"
    await anyio.to_thread.run_sync(check_journal, path, packages_of)
    async with connected(path, factory=WritingConnection, cached_statements=256) as database:
        node, last_key = await _prepare(database, path)
        writer, identity, readers = Writer(database), Identity(node, last_key), Readers(path)
        writer.make_room = lambda: give_up_ballast(directory)
        writer.on_recovered = lambda: take_ballast(directory, ballast)
        await anyio.to_thread.run_sync(take_ballast, directory, ballast)
        journal = SQLiteJournal(writer, identity, idempotency_retention=idempotency_retention)
        yield Storage(
            path=directory,
            writer=writer,
            identity=identity,
            journal=journal,
            records=SQLiteRecords(readers, writer, identity),
            outbox=SQLiteOutbox(readers, writer),
            catalog=SQLiteCatalogStore(writer),
            resources=SQLiteResourceStore(writer),
            cursors=SQLiteCursors(writer, journal),
        )


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


def take_ballast(directory: Path, size: int) -> None:
    """Write a ballast file of ``size`` bytes. Its deletion on a full disk frees space for settlement and pruning.

    Does nothing if less than four times ``size`` is free, or if the file cannot be written.
    """
    path = directory / "ballast"
    if not size or (path.exists() and path.stat().st_size == size):
        return
    disk = os.statvfs(directory)
    if disk.f_bavail * disk.f_frsize < 4 * size:
        return
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        path.unlink(missing_ok=True)


def give_up_ballast(directory: Path) -> None:
    """Delete the ballast file, so that its space can be used on a full disk."""
    (directory / "ballast").unlink(missing_ok=True)
