"""Database file ``journal.db``: its schema, its writing connection, and the storage on it.

The writing connection is opened before all other connections to the file and closed after them. The other connections
are read-only and short-lived.
"""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import aiosqlite
import anyio
import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from engine.errors import RESTORE, DataDirectoryUnusable, DiskFailing, recover
from engine.errors.files import file_errors
from engine.isolation.machine import fsync_path
from engine.model.identity import NODE_BITS, Identity
from engine.protocols import Cluster, CopySteps, StorageStatistics
from engine.storage.data_directory import KEY, Ballast
from engine.storage.sqlite.batch import Visit, WritingConnection
from engine.storage.sqlite.calls import SQLiteCalls
from engine.storage.sqlite.checkpoints import Checkpoints
from engine.storage.sqlite.checks import check_start
from engine.storage.sqlite.checksums import add_sums
from engine.storage.sqlite.connection import Readers, connected, not_opened
from engine.storage.sqlite.cursors import SQLiteCursors
from engine.storage.sqlite.damage import Damage, find_page
from engine.storage.sqlite.encryption import Encryption
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.journal_check import APPLICATION_ID, check_journal
from engine.storage.sqlite.outbox import SQLiteOutbox
from engine.storage.sqlite.records import SQLiteRecords
from engine.storage.sqlite.status_log import SQLiteStatusLog, StatusRows
from engine.storage.sqlite.stores import SQLiteCatalogStore, SQLiteResourceStore, SQLiteStore
from engine.storage.sqlite.window import SQLiteWindow
from engine.storage.sqlite.writer import Writer


class StorageOptions(Struct, frozen=True, kw_only=True):
    """Settings of a storage."""

    directory: Path  #: data directory
    idempotency_retention: float = 86_400.0  #: seconds for which idempotency keys are stored
    ballast: int = 0  #: bytes of the ballast file; 0: none
    durable: bool = True  #: False: a commit is not synced to disk
    key_file: Path | None = None  #: with the key of secrets; None: ``key`` in the data directory
    is_secret: Callable[[str], bool] = lambda name: False  #: a field of triggers with this name is encrypted


class SingleEngine:
    """Member of a cluster of one, which owns all work and is never lost: the locked data directory ensures that."""

    slot = 0

    def owns(self, name: str) -> bool:
        return True

    def remaining(self) -> float:
        return math.inf

    async def lost(self) -> None:
        await anyio.sleep_forever()


class SQLiteStorage:
    """Parts of a storage. Writes need the running task ``writer.run``."""

    def __init__(
        self,
        writer: Writer,
        readers: Readers,
        identity: Identity,
        cluster: Cluster,
        *,
        options: StorageOptions,
        damage: Damage,
        encryption: Encryption,
    ) -> None:
        self._readers, self._damage, self._durable = readers, damage, options.durable
        self.writer, self.identity, self.cluster, self._encryption = writer, identity, cluster, encryption
        states = StatusRows()
        self.journal = SQLiteJournal(
            writer, identity, damage=damage, idempotency_retention=options.idempotency_retention, states=states
        )
        self.status_log = SQLiteStatusLog(writer, identity, states)
        self.window = SQLiteWindow(writer, identity, damage)
        self.records = SQLiteRecords(readers, writer, identity, damage)
        self.outbox = SQLiteOutbox(readers, writer, self.journal)
        self.catalog = SQLiteCatalogStore(writer)
        self.resources = SQLiteResourceStore(writer)
        self.cursors = SQLiteCursors(writer, self.journal)
        self.calls = SQLiteCalls(readers, writer, identity, self.journal)

    def store(self, plugin: str) -> SQLiteStore:
        return SQLiteStore(self.writer, plugin, self._damage)

    async def copy_to(self, folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        [[size]] = await self.writer.call(lambda database: database.execute("PRAGMA page_size").fetchall())
        return await self.writer.copy_to(
            folder / "journal.db", lambda copied, pages: on_progress(copied * size, pages * size)
        )

    @property
    def broken(self) -> bool:
        return self.writer.broken

    async def damaged(self) -> str:
        await self._damage.ended()
        damage = await self._readers.call(find_page)
        return await anyio.to_thread.run_sync(self._damage.mark, damage)

    def statistics(self) -> StorageStatistics:
        damage = self._damage
        return replace(
            self.writer.statistics(),
            damage=damage.first,
            refusal=damage.refusal,
            unstored=damage.unstored,
            durable=self._durable,
            lost_secrets=len(self._encryption.lost),
        )


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
async def open_storage(options: StorageOptions, *, packages_of: str | None = None) -> AsyncIterator[SQLiteStorage]:
    """Open the storage of an engine whose data directory the caller has ``locked``.

    ``packages_of`` is the journal's name stored with the code packages; None means that there are no packages.

    The storage is usable inside the block. At the end of the block, calls raise ShuttingDown, and the block ends when
    all writes submitted before are on disk. If writes fail then, they are refused, and ``start`` and ``settle`` are
    dropped: the next engine runs these invocations again. The block also ends, with JournalBroken, after a failure
    that only a restart can cure.

    Raises DataDirectoryUnusable if the storage cannot be opened, was written by a newer schema, belongs to another
    program, or does not belong to the code packages.
    """
    path, cluster = options.directory / "journal.db", SingleEngine()
    reserve = Ballast(options.directory, options.ballast)
    damage = Damage(options.directory)
    encryption = Encryption(options.key_file or options.directory / KEY, options.is_secret)
    async with _opened(path, packages_of, reserve, damage, encryption) as (database, checkpoints, (node, last_key)):
        if not options.durable:
            await database.execute("PRAGMA synchronous = OFF")
        writer = Writer(database, checkpoints=checkpoints, make_room=reserve.give_up, on_recovered=reserve.take)
        await anyio.to_thread.run_sync(reserve.take)
        identity = Identity(node, last_key, cluster.slot)
        async with anyio.create_task_group() as tasks:
            # Not ``await start``: cancellation during it would wait for the writer, which only ``close`` ends.
            tasks.start_soon(writer.run)
            try:
                readers = Readers(path, damage)
                yield SQLiteStorage(
                    writer, readers, identity, cluster, options=options, damage=damage, encryption=encryption
                )
            finally:
                writer.close()


@asynccontextmanager
async def _opened(
    path: Path, packages_of: str | None, reserve: Ballast, damage: Damage, encryption: Encryption
) -> AsyncIterator[tuple[aiosqlite.Connection, Checkpoints, tuple[int, int]]]:
    """Open the writing connection to a journal with the current schema, and take over its checkpoints.

    If the disk is full, ``reserve`` is given up. If it fails although little space was free before, a second try
    follows. A second try also follows other errors, because SQLite takes a page for damaged if its read failed once.
    """
    await anyio.to_thread.run_sync(reserve.give_up_if_full)
    async with AsyncExitStack() as stack:
        try:
            opened = await _open(stack, path, packages_of, damage, encryption)
        except DataDirectoryUnusable as error:
            if isinstance(error, DiskFailing) and not await anyio.to_thread.run_sync(reserve.give_up):
                raise
            await stack.aclose()
            opened = await _open(stack, path, packages_of, damage, encryption)
        yield opened


async def _open(
    stack: AsyncExitStack, path: Path, packages_of: str | None, damage: Damage, encryption: Encryption
) -> tuple[aiosqlite.Connection, Checkpoints, tuple[int, int]]:
    """Return the writing connection, its checkpoints, and the numbers that ``_prepare`` returns."""
    await anyio.to_thread.run_sync(check_journal, path, packages_of)
    with file_errors(path):  # SQLite gives the log and its index the mode of the database
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    checkpoints = stack.enter_context(closing(Checkpoints(path)))  # closed after the connection
    try:
        factory = partial(WritingConnection, damaged=damage.met)
        opening = connected(path, factory=factory, cached_statements=256)
        database = await stack.enter_async_context(opening)
        await database.execute_fetchall("PRAGMA schema_version")  # rolls back a first start that was interrupted
        await anyio.to_thread.run_sync(checkpoints.hold)
        stack.callback(checkpoints.release)
        prepared = Visit(partial(_prepare, path))
        await database.executemany("", prepared)
        await anyio.to_thread.run_sync(checkpoints.hold)
        with file_errors(path):
            await anyio.to_thread.run_sync(_sync, path)
            if checkpoints.watch():
                await database.execute("PRAGMA wal_autocheckpoint = 0")
                await database.executemany("", Visit(checkpoints.begin))
            await database.executemany("", Visit(partial(encryption.start, path, checkpoints)))
    except sqlite3.DatabaseError as error:
        raise not_opened(path, error) from error
    return database, checkpoints, prepared.value


def _prepare(path: Path, db: sqlite3.Connection) -> tuple[int, int]:
    """Set pragmas, migrate the schema, and check the tables that each start needs.

    Return the journal's number, and the largest key of an invocation.
    """
    [[application]] = db.execute("PRAGMA application_id")
    if application != APPLICATION_ID:
        db.executescript(MARK)
    db.executescript(_PRAGMAS)
    _migrate(db, path)
    _check_schema(db, path)
    add_sums(db)
    if problem := check_start(db):
        raise DataDirectoryUnusable(str(path), f"{problem}; {recover(path.parent)}")
    db.execute("INSERT OR IGNORE INTO meta VALUES ('node', ?)", (secrets.randbits(NODE_BITS),))
    [[node]] = db.execute("SELECT value FROM meta WHERE name = 'node'")
    newest = " UNION ALL ".join(f"SELECT max(key) AS key FROM {table}" for table in ("invocation", "call_group"))
    [[last_key]] = db.execute(f"SELECT coalesce(max(key), 0) FROM ({newest})")
    return node, last_key


def _sync(path: Path) -> None:
    """Sync the write-ahead log and the names in the data directory to disk.

    A killed engine may have left a commit in the log that is not synced. The commit is visible from now on, so it must
    not vanish any more. Closing the log's file is safe: SQLite holds no locks on it, unlike on its other files.
    """
    with suppress(FileNotFoundError):
        fsync_path(Path(f"{path.resolve()}-wal"))
    fsync_path(path.parent)


def _check_schema(db: sqlite3.Connection, path: Path) -> None:
    """Raise DataDirectoryUnusable if a table or index is missing. ``path`` is the file of the database."""
    names = "SELECT type || ' ' || name FROM sqlite_schema"
    with closing(sqlite3.connect(":memory:")) as model:
        for _, script in scripts():
            model.executescript(script.read_text())
        expected = {name for [name] in model.execute(names)}
    missing = expected - {name for [name] in db.execute(names)}
    if missing:
        raise DataDirectoryUnusable(str(path), f"damaged, without {', '.join(sorted(missing))}; {RESTORE}")


def scripts() -> list[tuple[int, Traversable]]:
    """Return the migrations with their numbers, in their order."""
    entries = sorted((f for f in files("engine.storage.sqlite").joinpath("migrations").iterdir()), key=lambda f: f.name)
    return [(int(script.name[:4]), script) for script in entries if script.name.endswith(".sql")]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Apply all migrations that are newer than the schema version of the database.

    Each migration and the new version number are stored in one transaction. Raises DataDirectoryUnusable if the schema
    is newer than the last migration of this engine.
    """
    [[version]] = db.execute("PRAGMA user_version")
    numbered = scripts()
    if version > numbered[-1][0]:
        problem = f"was written by a newer functiond (schema {version}); start that version or a newer one"
        raise DataDirectoryUnusable(str(path), problem)
    for number, script in numbered:
        if number > version:
            db.executescript(f"BEGIN IMMEDIATE;\n{script.read_text()}\nPRAGMA user_version = {number};\nCOMMIT;")
