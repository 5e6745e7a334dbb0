"""Status log of the double: it has no entries. Entries are tested on SQLite only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from engine.model.signal import Signal
from engine.protocols import StatusEntry, StatusLogStatistics, StatusTarget
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryStatusLog:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self.added: Signal[[]] = Signal()

    async def load(self) -> Collection[int]:
        return ()

    async def follow(self, function_id: int, targets: Sequence[StatusTarget]) -> None:
        """Do nothing."""

    async def read(self, rows: int) -> Sequence[StatusEntry]:
        return ()

    async def hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        """Do nothing."""

    def statistics(self) -> StatusLogStatistics:
        return StatusLogStatistics(waiting=0, dropped=0)
