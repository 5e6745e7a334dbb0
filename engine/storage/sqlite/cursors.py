"""Cursors of trigger sources on disk. Cursors and the requests made from a source's events are stored together."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from engine.errors import CursorMoved, IdempotencyConflict
from engine.model import ContentKey, Invocation
from engine.protocols import BatchWritten, CursorMove, divide
from engine.storage.sqlite.batch import CallRequest, WriteRequest, WritingConnection
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.writer import Writer, answer


class SQLiteCursors:
    def __init__(self, writer: Writer, journal: SQLiteJournal) -> None:
        self._writer, self._journal = writer, journal

    async def read(self, trigger_id: str) -> Mapping[str, bytes]:
        return await self._writer.call(lambda db: _read(db, trigger_id))

    async def read_all(self) -> dict[str, dict[str, bytes]]:
        sql, by_trigger = "SELECT trigger_id, name, position FROM cursor", dict[str, dict[str, bytes]]()
        for trigger_id, name, position in await self._writer.call(lambda db: db.execute(sql).fetchall()):
            by_trigger.setdefault(trigger_id, {})[name] = bytes(position)
        return by_trigger

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: BatchWritten | None = None,
    ) -> asyncio.Future[Sequence[str]]:
        self._journal.damage.check()
        future: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

        def write(db: WritingConnection) -> tuple[Sequence[str], frozenset[int]]:
            if move is not None:
                _move(db, move)
            return self._append(db, requests)

        def done(request: WriteRequest) -> None:
            self._journal.damage.note_append(request.error)
            request.value, held = request.value if request.error is None else ([""] * len(requests), frozenset())
            stored, others = divide(requests, request.value)
            if held:
                stored = [replace(new, held=True) if new.key in held else new for new in stored]
            if then is not None:
                then(stored, others)
            answer(future, request)

        self._writer.submit(CallRequest(write, done))
        self._journal.states.announce(invocation.function_id for invocation, _ in requests)
        return future

    def _append(
        self, db: WritingConnection, requests: Sequence[tuple[Invocation, str]]
    ) -> tuple[Sequence[str], frozenset[int]]:
        """Store the requests. Return one invocation id for each of them, and the keys of those that are held.

        If the idempotency key of a request was used with the same payload, the request is not stored, and its id is
        that of the earlier invocation. If the key was used with another payload, the request is not stored either, and
        its id is empty.
        """
        ids = [self._claim(db, *request) if request[1] else request[0].request_id for request in requests]
        pairs = zip(requests, ids, strict=True)
        new = [invocation for (invocation, _), request_id in pairs if request_id == invocation.request_id]
        return ids, self._journal.store(db, new)

    def _claim(self, db: WritingConnection, invocation: Invocation, idempotency_key: str) -> str:
        try:
            return self._journal.claim(db, invocation, idempotency_key) or invocation.request_id
        except IdempotencyConflict:
            if isinstance(idempotency_key, ContentKey):
                raise
            return ""


def _read(db: sqlite3.Connection, trigger_id: str) -> Mapping[str, bytes]:
    rows = db.execute("SELECT name, position FROM cursor WHERE trigger_id = ?", (trigger_id,))
    return {name: bytes(position) for name, position in rows}


def _move(db: sqlite3.Connection, move: CursorMove) -> None:
    generation = db.execute(
        "SELECT json_extract(body, '$.generation') FROM resource WHERE kind = 'trigger' AND owner = ? AND id = ?",
        (move.owner, move.trigger_id),
    ).fetchone()
    if generation is None or generation[0] != move.generation:
        raise CursorMoved(move.trigger_id, "the trigger was changed or deleted meanwhile")
    stored = _read(db, move.trigger_id)
    for name, position in move.expected.items():
        if stored.get(name) != position:
            raise CursorMoved(move.trigger_id, f"its cursor {name!r} is not at the expected position")
    rows = [(move.trigger_id, name, position) for name, position in move.positions.items()]
    db.executemany("INSERT OR REPLACE INTO cursor (trigger_id, name, position) VALUES (?,?,?)", rows)
