"""Double of the pool of instances, for reservations."""

from __future__ import annotations

from engine.executors.reserve import Reserve
from engine.model import Function


class NoInstances:
    """Pool that starts no instance."""

    def __init__(self) -> None:
        self.reserve = Reserve(())

    async def warm(self, function: Function) -> bool:
        return False
