"""Records of invocations for the API and the console, read on short-lived read-only connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.model import Record
from engine.model.identity import Identity, accepted_at, key_at
from engine.model.retry import HISTORY
from engine.protocols import Count, Found, Place, Purged, Queued, Scan, Selection, Standing
from engine.storage.sqlite.attempts import ATTEMPTS, to_attempt
from engine.storage.sqlite.checksums import payload_problem, result_is_damaged
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.purge import Purge
from engine.storage.sqlite.record_search import ENDED, RUNNING, Search
from engine.storage.sqlite.rows import LISTED, to_record
from engine.storage.sqlite.waiting_scan import read_queued, read_standing, scan_waiting
from engine.storage.sqlite.writer import Writer

_RESULT = "SELECT body, log, sum FROM result WHERE key = ?"


class SQLiteRecords:
    def __init__(self, readers: Readers, writer: Writer, identity: Identity, damage: Damage) -> None:
        self._readers, self._writer, self._identity, self._damage = readers, writer, identity, damage
        self._purge = Purge(identity)

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        return await self._readers.call(lambda db: Search(db, selection).page(self._identity))

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        return await self._readers.call(lambda db: Search(db, selection).records(start, limit, back, self._identity))

    async def count(self, selection: Selection, most: int) -> Count:
        return await self._readers.call(lambda db: Search(db, selection).count(most))

    async def get(self, key: int) -> Record | None:
        def read(db: sqlite3.Connection) -> Record | None:
            row = db.execute(f"SELECT {LISTED}, size, trace, cause FROM invocation WHERE key = ?", (key,)).fetchone()
            if row is None:
                return None
            *listed, size, trace, cause = row
            record = to_record(tuple(listed), self._identity, trace=trace or "", cause=cause or 0)
            return replace(record, **_parts_of(db, record, size))

        return await self._readers.call(read)

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        def read(db: sqlite3.Connection) -> Sequence[Record]:
            found: list[Record] = []
            for states, back in ((RUNNING, True), (ENDED, False)):
                search = Search(db, Selection(function_id=function_id, states=states))
                found += search.records(None, most, back, self._identity).records
            return [replace(one, log=_log(db, one.key)) if one.state.final else one for one in found]

        return await self._readers.call(read)

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        sql = f"SELECT {LISTED} FROM invocation WHERE cause = ? ORDER BY key LIMIT ?"
        return await self._readers.call(
            lambda db: [to_record(row, self._identity) for row in db.execute(sql, (key, most))]
        )

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        return await self._readers.call(lambda db: scan_waiting(db, selection, after, limit))

    async def standing(self, key: int, most: int) -> Standing:
        return await self._readers.call(lambda db: read_standing(db, key, most))

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        return await self._readers.call(lambda db: read_queued(db, functions, most))

    async def newest(self, before: float) -> float | None:
        sql = "SELECT max(key) FROM invocation WHERE key < ?"
        [key] = await self._readers.call(lambda db: db.execute(sql, (key_at(before),)).fetchone())
        return None if key is None else accepted_at(key)

    async def purge(self, now: float, *, age: float, rows: int, size: int, ahead: float = 0.0) -> Purged:
        if self._damage.first:
            return Purged(request_ids=(), more=False, next_due=None)
        return await self._writer.call(lambda db: self._purge.step(db, now, age, rows, size, ahead))


def _log(db: sqlite3.Connection, key: int) -> bytes:
    """Return the stored end of a log; empty without one, or if it is damaged."""
    row = db.execute(_RESULT, (key,)).fetchone()
    return b"" if row is None or result_is_damaged(key, *row) else bytes(row[1])


def _parts_of(db: sqlite3.Connection, record: Record, size: int) -> dict[str, Any]:
    """Return payload, result, log and attempts of an invocation, and the names of those whose bytes have changed.

    ``size`` is the number of bytes of the payload. Parts that have changed are left out.
    """
    parts: dict[str, Any] = {}
    damaged = set()
    body, stored = db.execute("SELECT body, sum FROM payload WHERE key = ?", (record.key,)).fetchone() or (None, None)
    if payload_problem(record.key, size, body, stored):
        damaged.add("payload")
    else:
        parts["payload"] = body
    result = db.execute(_RESULT, (record.key,)).fetchone()
    if result and result_is_damaged(record.key, *result):
        damaged.add("result")
    elif result:
        parts["result"], parts["log"], _ = result
    history = db.execute(ATTEMPTS, (record.key,)).fetchall()[-HISTORY:]
    return {**parts, "attempts": tuple(map(to_attempt, history)), "damaged": frozenset(damaged)}
