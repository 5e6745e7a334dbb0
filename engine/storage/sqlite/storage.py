"""Storage in one SQLite file: all parts, with the writer that they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from engine.model.identity import Identity
from engine.protocols import Cluster, CopySteps, StorageStatistics
from engine.storage.options import StorageOptions
from engine.storage.sqlite.catalog_store import SQLiteCatalogStore
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.cursors import SQLiteCursors
from engine.storage.sqlite.damage import DamageNotes
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.outbox import SQLiteOutbox
from engine.storage.sqlite.records import SQLiteRecords
from engine.storage.sqlite.resource_store import SQLiteResourceStore
from engine.storage.sqlite.status_log import SQLiteStatusLog, StatusRows
from engine.storage.sqlite.store import SQLiteStore
from engine.storage.sqlite.writer import Writer


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
        notes: DamageNotes,
    ) -> None:
        self._notes, self._durable = notes, options.durable
        self.writer, self.identity, self.cluster = writer, identity, cluster
        states = StatusRows()
        self.journal = SQLiteJournal(
            writer, identity, idempotency_retention=options.idempotency_retention, notes=notes, states=states
        )
        self.status_log = SQLiteStatusLog(writer, identity, states)
        self.window = self.journal
        self.records = SQLiteRecords(readers, writer, identity, notes)
        self.outbox = SQLiteOutbox(readers, writer, notes, states)
        self.catalog = SQLiteCatalogStore(writer)
        self.resources = SQLiteResourceStore(writer)
        self.cursors = SQLiteCursors(writer, self.journal)

    def store(self, plugin: str) -> SQLiteStore:
        return SQLiteStore(self.writer, plugin, self._notes)

    async def copy_to(self, folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        [[size]] = await self.writer.call(lambda database: database.execute("PRAGMA page_size").fetchall())
        return await self.writer.copy_to(
            folder / "journal.db", lambda copied, pages: on_progress(copied * size, pages * size)
        )

    @property
    def broken(self) -> bool:
        return self.writer.broken

    def statistics(self) -> StorageStatistics:
        return replace(self.writer.statistics(), damage=self._notes.ranges, durable=self._durable)
