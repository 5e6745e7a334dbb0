"""Status log of the double: entries in memory, which the tables add."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from engine.model.signal import Signal
from engine.protocols import StatusEntry, StatusLogStatistics, StatusTarget
from tests.doubles.store import MemoryStore
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryStatusLog:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites) -> None:
        self._states, self._writes, self._tables = tables.states, writes, tables

    @property
    def added(self) -> Signal[[]]:
        return self._states.added

    async def load(self) -> Collection[int]:
        self._writes.check()
        return {function_id for function_id, _ in self._states.targets}

    async def follow(self, function_id: int, targets: Sequence[StatusTarget]) -> None:
        self._writes.check()
        others = {key: target for key, target in self._states.targets.items() if key[0] != function_id}
        self._states.targets = others | {(target.function_id, target.version): target for target in targets}

    async def read(self, rows: int) -> Sequence[StatusEntry]:
        self._writes.check()
        return self._states.entries[:rows]

    async def hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        await MemoryStore(self._writes, self._tables, plugin).write(table, put)
        self._states.entries = [entry for entry in self._states.entries if entry.entry_id > until]

    def statistics(self) -> StatusLogStatistics:
        return StatusLogStatistics(waiting=len(self._states.entries), dropped=self._states.dropped)
