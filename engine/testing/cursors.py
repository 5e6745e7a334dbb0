"""Double of the cursors: positions of trigger sources in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from engine.errors import CursorMoved, IdempotencyConflict
from engine.model import ContentKey, Invocation
from engine.protocols import BatchWritten, CursorMove, divide
from engine.testing.journal import MemoryJournal
from engine.testing.resources import MemoryResourceStore
from engine.testing.rows import move_problem
from engine.testing.writes import MemoryWrites, at_the_next_turn


class MemoryCursors:
    def __init__(self, journal: MemoryJournal, resources: MemoryResourceStore, writes: MemoryWrites) -> None:
        self._journal, self._resources, self._writes = journal, resources, writes
        self._positions: dict[str, dict[str, bytes]] = {}

    async def read(self, trigger_id: str) -> Mapping[str, bytes]:
        self._writes.check()
        if self._resources.find("trigger", trigger_id) is None:
            self._positions.pop(trigger_id, None)
        return dict(self._positions.get(trigger_id, {}))

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: BatchWritten | None = None,
    ) -> asyncio.Future[Sequence[str]]:
        self._writes.check()
        problem = self._problem(move) if move else ""
        error: Exception | None = CursorMoved(move.trigger_id, problem) if move and problem else None
        try:
            for invocation, key in requests:
                if isinstance(key, ContentKey):
                    self._journal.earlier(invocation, key)
        except IdempotencyConflict as conflict:
            error = error or conflict
        if move and not error:
            self._positions[move.trigger_id] = {**self._positions.get(move.trigger_id, {}), **move.positions}
        ids = ["" if error else self._append(*request) for request in requests]

        def callback() -> None:
            stored, others = divide(requests, ids)
            if then is not None:
                then([self._journal.as_stored(one) for one in stored], others)

        return at_the_next_turn(ids, error, callback)

    # --- inside ---------------------------------------------------------------------------------------------

    def _append(self, invocation: Invocation, idempotency_key: str) -> str:
        try:
            return self._journal.store(invocation, idempotency_key)
        except IdempotencyConflict:
            return ""

    def _problem(self, move: CursorMove) -> str:
        trigger = self._resources.find("trigger", move.trigger_id)
        return move_problem(trigger, self._positions.get(move.trigger_id, {}), move)
