"""Double of the storage, in memory. What it has keeps all guarantees of a storage on disk except durability.

Writes take effect at once. Their futures are resolved and their callbacks called at the next turn of the event loop. To
simulate a restart of the engine, open the same storage again, and call ``journal.recover``. With other ``writes``, the
storage commits later, and with other ``tables``, it has the data of an earlier process.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, cast

import anyio

from engine.errors import Unsupported
from engine.metrics.histogram import SIZES, Histogram
from engine.model.identity import Identity
from engine.protocols import CopySteps, Outbox, Records, StorageStatistics
from tests.doubles.calls import NoCalls
from tests.doubles.cursors import MemoryCursors
from tests.doubles.journal import MemoryJournal
from tests.doubles.outbox import MemoryOutbox
from tests.doubles.records import MemoryRecords
from tests.doubles.status_log import MemoryStatusLog
from tests.doubles.store import MemoryCatalogStore, MemoryResourceStore, MemoryStore
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryCluster:
    """Cluster of one engine. ``others`` has the names that other engines own."""

    slot = 0

    def __init__(self) -> None:
        self.others: set[str] = set()
        self._lost = asyncio.Event()

    def owns(self, name: str) -> bool:
        return name not in self.others

    def remaining(self) -> float:
        return 0.0 if self._lost.is_set() else math.inf

    async def lost(self) -> None:
        await self._lost.wait()

    def join(self) -> None:
        self._lost.clear()

    def lose(self) -> None:
        """Let another engine take over all work."""
        self._lost.set()


class MemoryStorage:
    """Storage in memory. Usable without ``opened`` too. Tests may read ``rows``, ``deliveries`` and ``given_up``."""

    def __init__(
        self,
        *,
        node: int = 1,
        idempotency_retention: float = 86_400.0,
        tables: MemoryTables | None = None,
        writes: MemoryWrites | None = None,
    ) -> None:
        self.tables, self._writes = tables or MemoryTables(), writes or MemoryWrites()
        self.rows, self.deliveries, self.given_up = self.tables.rows, self.tables.deliveries, self.tables.given_up
        self.cluster = MemoryCluster()
        self.identity = Identity(node, self.tables.last_key, slot=self.cluster.slot)
        self.journal = MemoryJournal(self.tables, self._writes, idempotency_retention)
        self.window = self.journal
        self.records = cast(Records, MemoryRecords(self.tables, self._writes))
        self.status_log = MemoryStatusLog(self.tables, self._writes)
        self.outbox = cast(Outbox, MemoryOutbox(self.tables, self._writes))
        self.resources = MemoryResourceStore(self._writes, self.tables)
        self.catalog = MemoryCatalogStore(self.resources, self._writes)
        self.cursors = MemoryCursors(self.tables, self._writes, self.journal)
        self.calls: Any = NoCalls()

    def store(self, plugin: str) -> MemoryStore:
        return MemoryStore(self._writes, self.tables, plugin)

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
    async def opened(self) -> AsyncIterator[Self]:
        """Open the storage until the block ends, as ``open_storage`` does. A further block has the same data."""
        self._writes.open()
        self.cluster.join()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._writes.end_when_broken)
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self._writes.close()
                tasks.cancel_scope.cancel()

    def fail(self) -> None:
        """Let all writes fail until ``heal``."""
        self._writes.fail("the disk is full")

    def heal(self) -> None:
        self._writes.heal()

    def break_down(self) -> None:
        """Let all writes fail, and end the block of ``opened`` with JournalBroken."""
        self._writes.break_down("the disk failed")

    def lose_membership(self) -> None:
        self._writes.fail("another engine does the work of this one", broken=True)
        self.cluster.lose()
