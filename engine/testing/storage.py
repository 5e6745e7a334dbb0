"""Double of the whole storage, in memory. All guarantees of a storage on disk hold except durability.

Writes take effect at once. Their futures are resolved and their callbacks called at the next turn of the event loop. To
simulate a restart of the engine, open the same storage again, and call ``journal.recover``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from engine.errors import JournalBroken, Unsupported
from engine.metrics.histogram import SIZES, Histogram
from engine.model.identity import Identity
from engine.protocols import CopySteps, StorageStatistics
from engine.testing.catalog import MemoryCatalogStore
from engine.testing.cluster import MemoryCluster
from engine.testing.cursors import MemoryCursors
from engine.testing.journal import MemoryJournal
from engine.testing.outbox import MemoryOutbox
from engine.testing.records import MemoryRecords
from engine.testing.resources import MemoryResourceStore
from engine.testing.status_log import MemoryStatusLog
from engine.testing.store import MemoryStore
from engine.testing.tables import MemoryTables
from engine.testing.writes import MemoryWrites


class MemoryStorage:
    """Storage in memory. Usable without ``opened`` too. Tests may read ``rows``, ``deliveries`` and ``given_up``."""

    def __init__(self, *, node: int = 1, idempotency_retention: float = 86_400.0) -> None:
        tables, self._writes = MemoryTables(), MemoryWrites()
        self.rows, self.deliveries, self.given_up = tables.rows, tables.deliveries, tables.given_up
        self.cluster = MemoryCluster()
        self.identity = Identity(node, slot=self.cluster.slot)
        self.journal = MemoryJournal(tables, self._writes, idempotency_retention)
        self.window = self.journal
        self.records = MemoryRecords(tables, self._writes)
        self.status_log = MemoryStatusLog(tables.states, self._writes, self.store)
        self.outbox = MemoryOutbox(tables, self._writes)
        self.resources = MemoryResourceStore(self._writes)
        self.catalog = MemoryCatalogStore(self.resources, self._writes)
        self.cursors = MemoryCursors(self.journal, self.resources, self._writes)
        self._stores: dict[str, MemoryStore] = {}
        self._broken = asyncio.Event()

    def store(self, plugin: str) -> MemoryStore:
        return self._stores.setdefault(plugin, MemoryStore(self._writes))

    async def copy_to(self, folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        raise Unsupported("copy of its storage")

    @property
    def broken(self) -> bool:
        return self._writes.broken

    async def damaged(self) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    def statistics(self) -> StorageStatistics:
        return StorageStatistics(
            batch_size=Histogram(SIZES).snapshot(),
            commit_seconds=Histogram().snapshot(),
            in_flight_seconds=0.0,
            failure=self._writes.failure,
        )

    # --- for tests ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[MemoryStorage]:
        """Open the storage until the block ends, as ``open_storage`` does. A further block has the same data."""
        self._writes.open()
        self._broken.clear()
        self.cluster.join()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._end_when_broken)
            try:
                yield self
            finally:
                self._writes.close()
                tasks.cancel_scope.cancel()

    def fail(self) -> None:
        """Let all writes fail until ``heal``."""
        self._writes.fail("the disk is full")

    def heal(self) -> None:
        self._writes.heal()

    def break_down(self) -> None:
        """Let all writes fail, and end the block of ``opened`` with JournalBroken."""
        self._writes.fail("the disk failed", broken=True)
        self._broken.set()

    def lose_membership(self) -> None:
        self._writes.fail("another engine does the work of this one", broken=True)
        self.cluster.lose()

    async def _end_when_broken(self) -> None:
        await self._broken.wait()
        raise JournalBroken(self._writes.failure)
