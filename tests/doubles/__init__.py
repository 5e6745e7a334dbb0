"""Doubles of the engine's protocols for tests. Each passes the same contract tests as the real implementation."""

from __future__ import annotations

from engine.model.alarms import CHECK
from engine.model.clock import Clock
from tests.doubles.executor import InlineContext, InlineExecutor
from tests.doubles.storage import MemoryStorage
from tests.doubles.store import MemoryCatalogStore, MemoryResourceStore, MemoryStore

__all__ = [
    "InlineContext",
    "InlineExecutor",
    "ManualClock",
    "MemoryCatalogStore",
    "MemoryResourceStore",
    "MemoryStorage",
    "MemoryStore",
]


class ManualClock(Clock):
    """Clock that changes only by ``advance``. Timers of the event loop are not affected."""

    def __init__(self, now: float = 1_700_000_000.0, check: float = CHECK) -> None:
        super().__init__(check)
        self._now = now

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds
