"""Store of calls without any, for tests of components that need none."""

from __future__ import annotations

from typing import Any

from engine.errors import UnknownGroup
from engine.model.signal import Signal
from engine.protocols.calls import Links


class NoCalls:
    def __init__(self) -> None:
        self.groups_decided: Signal[[]] = Signal()

    def __getattr__(self, name: str) -> Any:
        raise NotImplementedError(f"calls are tested on SQLite only: {name}")

    async def links(self, key: int) -> Links:
        return Links()

    async def decided(self, limit: int, without: Any) -> Any:
        return ()

    async def expired(self, now: float, limit: int) -> Any:
        return (), None

    async def abandon(self, before: float) -> None:
        """Do nothing."""

    async def clear_expired(self, now: float) -> None:
        """Do nothing."""

    async def cancel(self, key: int, project: str) -> None:
        raise UnknownGroup("")
