"""Double of the status log: entries in memory, which the doubles of journal and outbox add."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from engine.model import Invocation, State
from engine.model.signal import Signal
from engine.protocols import StatusEntry, StatusLogStatistics, StatusTarget
from engine.protocols.status_log import LONGEST_MESSAGE, MOST_ENTRIES
from engine.testing.store import MemoryStore
from engine.testing.writes import MemoryWrites


class MemoryStates:
    """Entries of the status log, and the versions whose states are logged."""

    def __init__(self) -> None:
        self.added: Signal[[]] = Signal()
        self.targets: dict[tuple[int, str], StatusTarget] = {}
        self.entries: list[StatusEntry] = []
        self.dropped = self._last_id = 0

    def note(
        self, invocation: Invocation, state: State, at: float | None = None, code: int = 0, message: str = ""
    ) -> None:
        """Add an entry if the version of the invocation is followed. Without ``at``, the entry has the present time."""
        target = self.targets.get((invocation.function_id, invocation.version))
        if target is None:
            return
        if len(self.entries) >= MOST_ENTRIES:
            self.dropped += 1
            return
        self._last_id += 1
        entry = StatusEntry(
            entry_id=self._last_id,
            target=target,
            request_id=invocation.request_id,
            state=state,
            at=time.time() if at is None else at,
            code=code,
            message=message[:LONGEST_MESSAGE],
        )
        self.entries.append(entry)
        self.added()


class MemoryStatusLog:
    def __init__(self, states: MemoryStates, writes: MemoryWrites, store: Callable[[str], MemoryStore]) -> None:
        self._states, self._writes, self._store = states, writes, store

    @property
    def added(self) -> Signal[[]]:
        return self._states.added

    async def load(self) -> Collection[int]:
        self._writes.check()
        return {function_id for function_id, _ in self._states.targets}

    async def follow(self, function_id: int, targets: Sequence[StatusTarget]) -> None:
        self._writes.check()
        others = {key: one for key, one in self._states.targets.items() if key[0] != function_id}
        self._states.targets = others | {(one.function_id, one.version): one for one in targets}

    async def read(self, rows: int) -> Sequence[StatusEntry]:
        self._writes.check()
        return self._states.entries[:rows]

    async def hand_over(self, until: int, plugin: str, table: str, put: Mapping[str, bytes]) -> None:
        await self._store(plugin).write(table, put)
        self._states.entries = [one for one in self._states.entries if one.entry_id > until]

    def statistics(self) -> StatusLogStatistics:
        return StatusLogStatistics(waiting=len(self._states.entries), dropped=self._states.dropped)
