"""Records of invocations for the API and the console, read on short-lived read-only connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import aiosqlite

from engine.errors import Unavailable
from engine.model import Attempt, Record, State
from engine.model.identity import Identity, accepted_at, key_at
from engine.protocols import Purged, Selection
from engine.storage.sqlite.checksums import payload_problem, result_is_damaged
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import ADVICE, DamageNotes, is_damage
from engine.storage.sqlite.purge import Purge
from engine.storage.sqlite.rows import LISTED, SHOWN, to_record
from engine.storage.sqlite.writer import Writer

_Part = tuple[frozenset[State], str, str]  #: states, FROM clause, ORDER BY clause

#: Parts of a function's list: running, ready, delayed, ended. Each part is sorted by its index.
_PARTS: tuple[_Part, ...] = (
    (frozenset({State.RUNNING}), "INDEXED BY running WHERE state = 2 AND function_id = ?", "key"),
    (frozenset({State.WAIT}), "INDEXED BY ready WHERE state = 0 AND function_id = ?", "rank, key"),
    (frozenset({State.WAIT}), "INDEXED BY delayed WHERE state = 1 AND function_id = ?", "due"),
    (
        frozenset({State.SUCCESS, State.FAIL, State.DISCARD}),
        "INDEXED BY finished WHERE state >= 3 AND function_id = ?",
        "key DESC",
    ),
)
#: List of several functions. No index has the rows of several functions in the order of acceptance, so the table is
#: scanned.
_SCAN: _Part = (frozenset(State), "NOT INDEXED WHERE key > 0", "key DESC")
#: Running rows of several functions. Running rows are few but may be the oldest, so a scan of the table would be long.
_RUNNING: _Part = (frozenset({State.RUNNING}), "INDEXED BY running WHERE state = 2", "key DESC")

_NUMBERS = {state: [number for number, shown in enumerate(SHOWN) if shown is state] for state in State}


class SQLiteRecords:
    def __init__(self, readers: Readers, writer: Writer, identity: Identity, notes: DamageNotes | None = None) -> None:
        self._readers = readers
        self._writer = writer
        self._identity = identity
        self._purge = Purge(identity, notes)

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        try:
            return await self._list(selection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise Unavailable(f"some of the records are on a damaged page of the journal; {ADVICE}") from error

    async def _list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        found: list[Record] = []
        total, skip = 0, selection.offset
        async with self._readers.one() as db:  # in one snapshot, each row is in exactly one part
            for states, part, order in _parts(selection):
                wanted = selection.states & states if selection.states else states
                if not wanted:
                    continue
                source, values = _source(selection, part, order, wanted if wanted != states else frozenset())
                count = (await _all(db, f"SELECT count(*) FROM {source}", values))[0][0]
                room = selection.limit - len(found)
                if room > 0 and count > skip:
                    page = f"SELECT {LISTED} FROM {source} ORDER BY {order} LIMIT ? OFFSET ?"
                    rows = await _all(db, page, [*values, room, skip])
                    found.extend(to_record(row, self._identity) for row in rows)
                skip = max(0, skip - count)
                total += count
        return found, total

    async def get(self, key: int) -> Record | None:
        async with self._readers.one() as db:
            rows = await _part(db, f"SELECT {LISTED}, size FROM invocation WHERE key = ?", key)
            if rows is None:
                raise Unavailable(f"the record is on a damaged page of the journal; {ADVICE}")
            if not rows:
                return None
            *listed, size = rows[0]
            return to_record(tuple(listed), self._identity, **await _parts_of(db, key, size))

    async def newest(self, before: float) -> float | None:
        try:
            async with self._readers.one() as db:
                [(key,)] = await _all(db, "SELECT max(key) FROM invocation WHERE key < ?", [key_at(before)])
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return None  # on a damaged page, which must not stop others
        return None if key is None else accepted_at(key)

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        return await self._writer.call(
            lambda db: self._purge.step(db, now, age, rows, size),
            lambda db: self._purge.step_isolated(db, now, age, rows, size),
        )


def _parts(selection: Selection) -> tuple[_Part, ...]:
    if not selection.functions:
        return _PARTS
    return (_RUNNING if selection.states == _RUNNING[0] else _SCAN,)


def _source(selection: Selection, part: str, order: str, states: frozenset[State]) -> tuple[str, list[Any]]:
    """Return an SQL FROM clause and its values, for the rows in ``states`` that match the selection.

    ``part`` is the SQL that selects the index and these states, and ``order`` their sort order. If ``selection.within``
    is set, only the first ``within`` rows in this order are searched.
    """
    span, values = "", [] if selection.functions else [selection.function_id]
    if selection.begin > 0:
        span += " AND key >= ?"
        values.append(key_at(selection.begin))
    if selection.end != float("inf"):
        span += " AND key < ?"
        values.append(key_at(selection.end))
    if selection.below is not None:
        span += " AND key < ?"
        values.append(selection.below)
    filters, more = _filters(selection, states)
    values += more
    if not selection.within:
        return f"invocation {part}{span}{filters}", values
    first = f"SELECT rank, {LISTED} FROM invocation {part}{span} ORDER BY {order} LIMIT {selection.within:d}"
    return f"({first}) WHERE true{filters}", values


def _filters(selection: Selection, states: frozenset[State]) -> tuple[str, list[Any]]:
    text, values = "", list[Any]()
    if states:
        text += f" AND state IN ({','.join(str(number) for s in sorted(states) for number in _NUMBERS[s])})"
    for column, value in (("version", selection.version), ("alias", selection.alias)):
        if value:
            text += f" AND {column} = ?"
            values.append(value)
    for column, those in (("key", selection.keys), ("function_id", selection.functions or None)):
        if those is not None:
            text += f" AND {column} IN ({','.join('?' * len(those))})"
            values += sorted(those)
    return text, values


async def _parts_of(db: aiosqlite.Connection, key: int, size: int) -> dict[str, Any]:
    """Return payload, result, log and attempts of an invocation, and the names of those that are damaged.

    ``size`` is the number of bytes of the payload. Damaged parts are left out.
    """
    parts: dict[str, Any] = {}
    damaged = set()
    payload = await _part(db, "SELECT body, sum FROM payload WHERE key = ?", key)
    if payload is None or payload_problem(key, size, *(payload or [(None, None)])[0]):
        damaged.add("payload")
    else:
        parts["payload"] = payload[0][0]
    result = await _part(db, "SELECT body, log, sum FROM result WHERE key = ?", key)
    if result is None or (result and result_is_damaged(key, *result[0])):
        damaged.add("result")
    elif result:
        parts["result"], parts["log"], _ = result[0]
    sql = "SELECT attempt, started, ended, code, message FROM attempt WHERE key = ? ORDER BY attempt"
    history = await _part(db, sql, key)
    if history is None:
        damaged.add("attempts")
    attempts = (Attempt(attempt=a, started_at=s, ended_at=e, code=c, message=m) for a, s, e, c, m in history or ())
    return {**parts, "attempts": tuple(attempts), "damaged": frozenset(damaged)}


async def _part(db: aiosqlite.Connection, sql: str, key: int) -> list[tuple[Any, ...]] | None:
    """Return the rows that a statement selects for a key, or None if they are behind a damaged page."""
    try:
        return await _all(db, sql, [key])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return None


async def _all(db: aiosqlite.Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(sql, values)]
