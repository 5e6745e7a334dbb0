"""Store for the rows of a plugin that rejects writes when the disk is nearly full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.maintenance.disk_guard import DiskGuard
from engine.protocols import Store


class GuardedStore:
    """Store of one plugin that checks free disk space before it puts rows. Raises DiskLow if the disk is nearly full.

    Reads and deletions are never rejected, so that space can be freed. The last free space is reserved for accepted
    invocations.
    """

    def __init__(self, store: Store, disk: DiskGuard) -> None:
        self._disk = disk
        self._write = store.write
        self.get, self.scan, self.purge = store.get, store.scan, store.purge

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        if put:
            self._disk.check(sum(map(len, put.values())))
        await self._write(table, put, delete)
