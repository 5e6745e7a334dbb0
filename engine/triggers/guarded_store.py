"""A plugin's tables on a disk that must keep room for what was accepted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.maintenance.disk_guard import DiskGuard
from engine.protocols import Store


class GuardedStore:
    """Satisfies ``Store``. What is put may be refused with DiskLow; what makes room, or asks, never is."""

    def __init__(self, store: Store, disk: DiskGuard) -> None:
        self._disk = disk
        self._write = store.write
        self.get, self.scan, self.purge = store.get, store.scan, store.purge

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        if put:
            self._disk.check(sum(map(len, put.values())))
        await self._write(table, put, delete)
