"""Storage in one SQLite file: all parts, with the writer that they share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio.to_thread
from msgspec.structs import replace

from engine.model.identity import Identity
from engine.protocols import Cluster, CopySteps, StorageStatistics
from engine.storage.options import StorageOptions
from engine.storage.sqlite.catalog_store import SQLiteCatalogStore
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.cursors import SQLiteCursors
from engine.storage.sqlite.damage import Damage, find_page
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
        damage: Damage,
    ) -> None:
        self._readers, self._damage, self._durable = readers, damage, options.durable
        self.writer, self.identity, self.cluster = writer, identity, cluster
        states = StatusRows()
        self.journal = SQLiteJournal(
            writer, identity, damage=damage, idempotency_retention=options.idempotency_retention, states=states
        )
        self.status_log = SQLiteStatusLog(writer, identity, states)
        self.window = self.journal
        self.records = SQLiteRecords(readers, writer, identity, damage)
        self.outbox = SQLiteOutbox(readers, writer, damage, states)
        self.catalog = SQLiteCatalogStore(writer)
        self.resources = SQLiteResourceStore(writer)
        self.cursors = SQLiteCursors(writer, self.journal)

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
        found = await self._readers.call(find_page)
        return await anyio.to_thread.run_sync(self._damage.mark, found)

    def statistics(self) -> StorageStatistics:
        damage = self._damage
        return replace(
            self.writer.statistics(),
            damage=damage.first,
            refusal=damage.refusal,
            unstored=damage.unstored,
            durable=self._durable,
        )
