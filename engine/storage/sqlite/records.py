"""Records of invocations for the API and the console, read on short-lived read-only connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from engine.model import Record, State
from engine.model.identity import Identity, accepted_at, key_at
from engine.model.retry import HISTORY
from engine.protocols import Count, Found, Place, Purged, Queued, Scan, Selection, Standing
from engine.storage.sqlite.checksums import payload_problem, result_is_damaged
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.purge import Purge
from engine.storage.sqlite.record_search import ENDED, Search, filters, span
from engine.storage.sqlite.rows import ATTEMPTS, HELD, LISTED, READY, RUNNING, to_attempt, to_record
from engine.storage.sqlite.writer import Writer

_RESULT = "SELECT body, log, sum FROM result WHERE key = ?"
#: Statement that returns the key of the invocation right before a held one, which may be held too.
_PREDECESSOR = (
    "SELECT coalesce((SELECT max(key) FROM invocation INDEXED BY ordering WHERE function_id = i.function_id"
    " AND ordering_key = i.ordering_key AND state = -1 AND state < 3 AND key < i.key),"
    " (SELECT max(key) FROM invocation INDEXED BY ordering WHERE function_id = i.function_id"
    " AND ordering_key = i.ordering_key AND state >= 0 AND state < 3)) FROM invocation i WHERE key = ? AND state = -1"
)
#: Rows that one step of a scan of waiting invocations reads, whether they match or not.
SCANNED = 5000

#: Parts of the scan: the column that sorts a part, the FROM clause of the part, and the condition on the function.
_WAITING_PARTS = (
    ("key", "INDEXED BY held WHERE state = -1 AND function_id = ?", ""),
    ("rank", "INDEXED BY ready WHERE state = 0 AND function_id = ?", ""),
    ("due", "INDEXED BY delayed WHERE state = 1", " AND function_id = ?"),
)
_READY = "SELECT count(*) FROM (SELECT 1 FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ? LIMIT ?)"
_HELD = "SELECT count(*) FROM (SELECT 1 FROM invocation INDEXED BY held WHERE state = -1 AND function_id = ? LIMIT ?)"
_FIRST = (
    "SELECT key, due FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ? ORDER BY rank, key LIMIT 1"
)
#: The index of delayed rows has those of all functions, and not their functions.
_NEXT = (
    "SELECT function_id, min(due) FROM (SELECT function_id, due FROM invocation INDEXED BY delayed WHERE state = 1"
    " ORDER BY due LIMIT ?) GROUP BY function_id"
)


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
            records: list[Record] = []
            for states, back in ((frozenset({State.RUNNING}), True), (ENDED, False)):
                search = Search(db, Selection(function_id=function_id, states=states))
                records += search.records(None, most, back, self._identity).records
            return [replace(record, log=_log(db, record.key)) if record.state.final else record for record in records]

        return await self._readers.call(read)

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        sql = f"SELECT {LISTED} FROM invocation WHERE cause = ? ORDER BY key LIMIT ?"
        return await self._readers.call(
            lambda db: [to_record(row, self._identity) for row in db.execute(sql, (key, most))]
        )

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        return await self._readers.call(lambda db: _scan_waiting(db, selection, after, limit))

    async def standing(self, key: int, most: int) -> Standing:
        return await self._readers.call(lambda db: _read_standing(db, key, most))

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        return await self._readers.call(lambda db: _read_queued(db, functions, most))

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


def _scan_waiting(db: sqlite3.Connection, selection: Selection, after: Place, limit: int) -> Scan:
    """Return up to ``limit`` keys of waiting invocations that match, from behind the place ``after``.

    The index of delayed rows has those of all functions, so rows of other functions are read, too.
    """
    part, value, key = after
    keys, left = list[int](), SCANNED
    while part < len(_WAITING_PARTS):
        sql, values = _waiting_sql(selection, part)
        for key_read, value_read, matches in db.execute(sql, (*values, value, value, key, left)):
            left -= 1
            if matches:
                keys.append(key_read)
            if len(keys) == limit or not left:
                return Scan(keys=tuple(keys), reached=(part, value_read, key_read))
        part, value, key = part + 1, float("-inf"), 0
    return Scan(keys=tuple(keys), reached=None)


def _read_standing(db: sqlite3.Connection, key: int, most: int) -> Standing:
    """Return the place of an invocation. At most ``most`` invocations before it are counted."""
    sql = "SELECT function_id, rank, state, begun FROM invocation WHERE key = ?"
    function_id, rank, state, begun = db.execute(sql, (key,)).fetchone() or (0, 0.0, None, 0)
    if state == HELD:
        return Standing(predecessor=db.execute(_PREDECESSOR, (key,)).fetchone()[0])
    if state != READY:
        return Standing(begun=state == RUNNING and bool(begun))
    [ahead] = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ?"
        " AND rank <= ? AND (rank < ? OR key < ?) LIMIT ?)",
        (function_id, rank, rank, key, most),
    ).fetchone()
    return Standing(ahead=ahead)


def _read_queued(db: sqlite3.Connection, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
    """Return what waits of each function."""
    next_due: dict[int, float] = dict(db.execute(_NEXT, (most,)).fetchall())
    queued = {}
    for function_id in functions:
        [ready] = db.execute(_READY, (function_id, most)).fetchone()
        [held] = db.execute(_HELD, (function_id, most)).fetchone()
        first, first_due = db.execute(_FIRST, (function_id,)).fetchone() or (None, 0.0)
        queued[function_id] = Queued(
            ready=ready, held=held, first=first, first_due=first_due, next_due=next_due.get(function_id)
        )
    return queued


def _waiting_sql(selection: Selection, part: int) -> tuple[str, list[Any]]:
    column, source, own = _WAITING_PARTS[part]
    spanned, values = span(selection)
    conditions, more = filters(selection, frozenset())
    values += more
    values.append(selection.function_id)
    sql = (
        f"SELECT key, {column}, (true{spanned}{conditions}{own}) FROM invocation {source}"
        f" AND {column} >= ? AND ({column} > ? OR key > ?) ORDER BY {column}, key LIMIT ?"
    )
    return sql, values
