"""Cursors of the double: positions of trigger sources in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from engine.errors import CursorMoved, IdempotencyConflict
from engine.model import ContentKey, Invocation
from engine.protocols import BatchWritten, CursorMove, divide
from tests.doubles.journal import MemoryJournal
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites, answer_of


class MemoryCursors:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites, journal: MemoryJournal) -> None:
        self._tables, self._writes, self._journal = tables, writes, journal

    async def read(self, trigger_id: str) -> Mapping[str, bytes]:
        return await self._writes.call(lambda: dict(self._tables.cursors.get(trigger_id, {})))

    async def read_all(self) -> dict[str, dict[str, bytes]]:
        return await self._writes.call(lambda: {key: dict(cursors) for key, cursors in self._tables.cursors.items()})

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: BatchWritten | None = None,
    ) -> asyncio.Future[Sequence[str]]:
        future: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def done(value: list[Invocation | str] | None, error: Exception | None) -> None:
            entries = [""] * len(requests) if value is None else value
            stored = [entry for entry in entries if isinstance(entry, Invocation)]
            for invocation in stored:
                self._journal.note_available(invocation)
            ids = [entry.request_id if isinstance(entry, Invocation) else entry for entry in entries]
            if then is not None:
                then(stored, divide(requests, ids)[1])
            answer(ids, error)

        self._writes.submit(lambda: self._append(requests, move), done)
        return future

    def _append(self, requests: Sequence[tuple[Invocation, str]], move: CursorMove | None) -> list[Invocation | str]:
        stored = self._tables.cursors.get(move.trigger_id, {}) if move else {}
        if move and (problem := self._problem(move, stored)):
            raise CursorMoved(move.trigger_id, problem)
        for invocation, key in requests:
            if isinstance(key, ContentKey):
                self._tables.earlier(invocation, key)
        if move:
            self._tables.cursors[move.trigger_id] = {**stored, **move.positions}
        return [self._insert(*request) for request in requests]

    def _insert(self, invocation: Invocation, idempotency_key: str) -> Invocation | str:
        try:
            return self._journal.insert(invocation, idempotency_key)
        except IdempotencyConflict:
            return ""

    def _problem(self, move: CursorMove, stored: Mapping[str, bytes]) -> str:
        """Return why a cursor must not move; an empty text if it may."""
        trigger = self._tables.resources.get(("trigger", move.owner, move.trigger_id))
        if trigger is None or msgspec.json.decode(trigger.body).get("generation") != move.generation:
            return "the trigger was changed or deleted meanwhile"
        moved = next((name for name, position in move.expected.items() if stored.get(name) != position), None)
        return "" if moved is None else f"its cursor {moved!r} is not at the expected position"
