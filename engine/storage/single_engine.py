"""Cluster of one engine: the only engine of its storage, which the locked data directory ensures."""

from __future__ import annotations

import anyio


class SingleEngine:
    """Member of a cluster of one, which owns all work and is never lost."""

    slot = 0

    def owns(self, name: str) -> bool:
        return True

    async def lost(self) -> None:
        await anyio.sleep_forever()
