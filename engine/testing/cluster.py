"""Double of the cluster, in which another engine may own work, or take over all of it."""

from __future__ import annotations

import asyncio


class MemoryCluster:
    """Cluster of one engine. ``others`` has the names that other engines own."""

    slot = 0

    def __init__(self) -> None:
        self.others: set[str] = set()
        self._lost = asyncio.Event()

    def owns(self, name: str) -> bool:
        return name not in self.others

    async def lost(self) -> None:
        await self._lost.wait()

    def join(self) -> None:
        self._lost.clear()

    def lose(self) -> None:
        self._lost.set()
