"""Double of ``Cursors`` over the invocations of ``MemoryStorage``, and double of ``Store``, a plugin's tables."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from engine.errors import CursorMoved, IdempotencyConflict
from engine.model import Invocation
from engine.protocols import CursorMove
from engine.testing.resources import MemoryResourceStore
from engine.testing.storage import MemoryStorage, at_the_next_turn


class MemoryCursors:
    def __init__(self, storage: MemoryStorage, resources: MemoryResourceStore) -> None:
        self._storage, self._resources = storage, resources
        self._positions: dict[str, dict[str, bytes]] = {}

    async def read(self, trigger_id: str) -> Mapping[str, bytes]:
        if self._resources.find("trigger", trigger_id) is None:
            self._positions.pop(trigger_id, None)
        return dict(self._positions.get(trigger_id, {}))

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[Sequence[str]]:
        problem = self._problem(move) if move else ""
        error = CursorMoved(move.trigger_id, problem) if move and problem else None
        if move and not error:
            self._positions[move.trigger_id] = {**self._positions.get(move.trigger_id, {}), **move.positions}
        ids = ["" if error else self._append(*request) for request in requests]

        def callback() -> None:
            for (invocation, _), request_id in zip(requests, ids, strict=True):
                if then is not None:
                    then(invocation, request_id == invocation.request_id)

        return at_the_next_turn(ids, error, callback)

    # --- inside ---------------------------------------------------------------------------------------------

    def _append(self, invocation: Invocation, idempotency_key: str) -> str:
        try:
            return self._storage.journal.store(invocation, idempotency_key)
        except IdempotencyConflict:
            return ""

    def _problem(self, move: CursorMove) -> str:
        row = self._resources.find("trigger", move.trigger_id)
        generation = msgspec.json.decode(row.body, type=dict[str, object]).get("generation") if row else None
        if row is None or (row.owner, generation) != (move.owner, move.generation):
            return "the trigger was changed or deleted meanwhile"
        stored = self._positions.get(move.trigger_id, {})
        moved = next((name for name, position in move.expected.items() if stored.get(name) != position), None)
        return "" if moved is None else f"its cursor {moved!r} is not at the expected position"


class MemoryStore:
    def __init__(self) -> None:
        self._tables: dict[str, dict[str, bytes]] = {}

    async def get(self, table: str, key: str) -> bytes | None:
        return self._tables.get(table, {}).get(key)

    async def scan(
        self, table: str, *, after: str = "", until: str = "", limit: int = 1000, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        rows = self._tables.get(table, {})
        keys = sorted((key for key in rows if key > after and (not until or key < until)), reverse=newest)
        return [(key, rows[key]) for key in keys[:limit]]

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        rows = self._tables.setdefault(table, {})
        for key in delete:
            rows.pop(key, None)
        rows.update(put or {})

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        rows = self._tables.get(table, {})
        purged = sorted(key for key in rows if after < key < until)[:limit]
        for key in purged:
            del rows[key]
        return len(purged)
