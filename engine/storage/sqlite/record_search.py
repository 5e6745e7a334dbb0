"""Search of records in steps, forwards and backwards, and their number. A step reads rows for a limited time.

A list has parts, each sorted by an index or by the table itself. A step reads chunks of rows behind a place, in the
order of their part. The size of the chunks grows as long as time is left, so that a slow disk does not prolong a step.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from engine.model import Record, State
from engine.model.identity import Identity, key_at
from engine.protocols import NEWEST, Count, Found, Place, Selection
from engine.storage.sqlite.rows import LISTED, SHOWN, to_record

_NUMBERS = {state: [number for number, shown in SHOWN.items() if shown is state] for state in State}


def span(selection: Selection) -> tuple[str, list[Any]]:
    """Return the SQL conditions on the key that the times of a selection make, and their values."""
    bounds = [
        (" AND key >= ?", key_at(selection.begin) if selection.begin > 0 else None),
        (" AND key < ?", key_at(selection.end) if selection.end != float("inf") else None),
        (" AND key < ?", selection.below),
        (" AND key >= ?", selection.since or None),
    ]
    given = [(text, key) for text, key in bounds if key is not None]
    return "".join(text for text, _ in given), [key for _, key in given]


def filters(selection: Selection, states: frozenset[State]) -> tuple[str, list[Any]]:
    text, values = "", list[Any]()
    if states:
        text += f" AND state IN ({','.join(str(number) for s in sorted(states) for number in _NUMBERS[s])})"
    for column, value in (
        ("version", selection.version),
        ("alias", selection.alias),
        ("source", selection.source),
        ("trigger_id", selection.trigger_id),
    ):
        if value:
            text += f" AND {column} = ?"
            values.append(value)
    if selection.parent:
        text += " AND key IN (SELECT key FROM call WHERE parent = ?)"
        values.append(selection.parent)
    for among, those in (
        ("key IN", selection.keys),
        ("function_id IN", selection.functions or None),
        ("code IN", selection.codes or None),
        ("code NOT IN", selection.without or None),
    ):
        if those is not None:
            text += f" AND {among} ({','.join('?' * len(those))})"
            values += sorted(those)
    if selection.text:
        text += r" AND message LIKE ? ESCAPE '\'"
        escaped = re.sub(r"([%_\\])", r"\\\1", selection.text)
        values.append(f"%{escaped}%")
    return text, values


BUDGET = 0.045  #: seconds of a step
CHUNK, LARGEST = 256, 8192  #: rows of the first chunk, and of the largest
FEW = 10_000  #: invocations that have not ended, up to which a search for them reads indexes instead of the table


class _Part(Struct, frozen=True, kw_only=True):
    states: frozenset[State]
    rows: str  #: FROM clause and condition; sorted by ``by``, then by key
    by: str = "key"
    newest: bool = False  #: sorted by falling keys
    own: bool = True  #: the condition has a placeholder for the function


_WAIT, RUNNING = frozenset({State.WAIT}), frozenset({State.RUNNING})
ENDED = frozenset(state for state in State if state.final)
#: Parts of a function's list.
_PARTS = (
    _Part(states=RUNNING, rows="INDEXED BY running WHERE state = 2 AND function_id = ?"),
    _Part(states=_WAIT, rows="INDEXED BY ready WHERE state = 0 AND function_id = ?", by="rank"),
    _Part(states=_WAIT, rows="INDEXED BY delayed WHERE state = 1", by="due", own=False),
    _Part(states=_WAIT, rows="INDEXED BY held WHERE state = -1 AND function_id = ?"),
    _Part(states=ENDED, rows="INDEXED BY finished WHERE state >= 3 AND function_id = ?", newest=True),
)
#: List of several functions.
_ALL = _Part(states=frozenset(State), rows="NOT INDEXED WHERE key > 0", newest=True, own=False)
_UNENDED = " UNION ALL ".join(
    f"SELECT key FROM invocation INDEXED BY {index} WHERE state = {state}"
    for index, state in (("running", 2), ("ready", 0), ("delayed", 1), ("held", -1))
)
#: Same list, if few have not ended and only those are wanted.
_FEW = _Part(states=_WAIT | RUNNING, rows=f"WHERE key IN ({_UNENDED})", newest=True, own=False)


class Search:
    """One step of a search."""

    def __init__(self, db: sqlite3.Connection, selection: Selection) -> None:
        self._db, self._selection = db, selection
        self._ends_at = time.perf_counter() + BUDGET
        self._parts = _parts(db, selection)

    def records(self, start: Place | None, limit: int, back: bool, identity: Identity) -> Found:
        """Return the records that match, as ``Records.search`` does."""
        rows, read, more = list[Any](), 0, False
        first, last = None, None
        for chunk in self._chunks(start, back, limit + 1):
            room = limit - len(rows)
            sql = f"SELECT {chunk.by}, {LISTED} {chunk.rows} LIMIT ?"
            matching = self._db.execute(sql, (*chunk.values, room + 1)).fetchall()
            first, read, more = first or chunk.first, read + chunk.size, chunk.more or len(matching) > room
            rows += [row[1:] for row in matching[:room]]
            if len(matching) > room:
                last = _place(chunk.part, chunk.by, matching[room - 1][:2]) if room else last
                break
            last = chunk.last or last
        listed = tuple(to_record(row, identity) for row in (reversed(rows) if back else rows))
        first, last = (last, first) if back else (first, last)
        return Found(records=listed, read=read, first=first, last=last, more=more)

    def page(self, identity: Identity) -> tuple[list[Record], int]:
        """Return records and their whole number, as ``Records.list`` does, without a limit of time."""
        selection, records, total = self._selection, list[Record](), 0
        skip = selection.offset
        for number in sorted(self._parts):
            part = self._statement(number, None, False)
            rows, values = f"FROM invocation {part.rows}{part.conditions}", (*part.values, *part.filters)
            count = room = selection.limit - len(records)
            if selection.counted:
                [count] = self._db.execute(f"SELECT count(*) {rows}", values).fetchone()
            if room > 0 and count > skip:
                sql = f"SELECT {LISTED} {rows} ORDER BY {part.order} LIMIT ? OFFSET ?"
                records += [to_record(row, identity) for row in self._db.execute(sql, (*values, room, skip))]
            skip, total = max(0, skip - count), total + count
        return records, total

    def count(self, most: int) -> Count:
        rows = 0
        for chunk in self._chunks(None, False, most + 1):
            sql = f"SELECT count(*) FROM (SELECT 1 {chunk.rows} LIMIT ?)"
            rows += self._db.execute(sql, (*chunk.values, most + 1 - rows)).fetchone()[0]
            if rows > most:
                return Count(rows=most, more=True)
            if not chunk.more:
                return Count(rows=rows)
        return Count(rows=rows, more=bool(self._parts))

    # --- inside ---------------------------------------------------------------------------------------------

    def _chunks(self, start: Place | None, back: bool, wanted: int) -> Iterator[_Chunk]:
        """Yield chunks from behind ``start`` until the time is over, or there are no more. ``wanted`` rows suffice."""
        order = sorted(self._parts, reverse=back)
        numbers = [n for n in order if start is None or (n <= start[0] if back else n >= start[0])]
        size, read = CHUNK, 0
        for position, number in enumerate(numbers):
            place = start if start is not None and start[0] == number else None
            while True:
                statement = self._statement(number, place, back)
                size = size if statement.conditions else wanted
                began = time.perf_counter()
                chunk = self._chunk(statement, number, size, position + 1 < len(numbers))
                read += chunk.size
                yield chunk
                took, left = time.perf_counter() - began, self._ends_at - time.perf_counter()
                # A few rows are always read, so that short lists are whole on a busy machine. Without a row in the
                # chunk, there is no place to go on.
                if took > left and chunk.size and read >= CHUNK:
                    return
                if chunk.size < size:
                    break
                place, size = chunk.last, min(size * 2, LARGEST) if 3 * took < left else size

    def _chunk(self, statement: _Statement, number: int, size: int, further: bool) -> _Chunk:
        by, ordered = self._parts[number].by, f"FROM invocation {statement.rows} ORDER BY {statement.order}"
        places = f"SELECT {by}, key {ordered}"
        first = self._db.execute(f"{places} LIMIT 1", statement.values).fetchone()
        last = self._db.execute(f"{places} LIMIT 1 OFFSET ?", (*statement.values, size - 1)).fetchone()
        count = size
        if last is None:
            rows = self._db.execute(places, statement.values).fetchall()
            count, last = len(rows), rows[-1] if rows else None
        return _Chunk(
            part=number,
            by=by,
            rows=f"FROM (SELECT rank, {LISTED} {ordered} LIMIT ?) WHERE true{statement.conditions}",
            values=(*statement.values, size, *statement.filters),
            first=_place(number, by, first),
            last=_place(number, by, last),
            size=count,
            more=count == size or further,
        )

    def _statement(self, number: int, place: Place | None, back: bool) -> _Statement:
        part, selection = self._parts[number], self._selection
        wanted = selection.states & part.states if selection.states else part.states
        conditions, values = filters(selection, wanted if wanted != part.states else frozenset())
        spanned, keys = span(selection)
        rows, bounds = part.rows, [selection.function_id] if part.own else []
        if not part.own and not selection.functions:
            conditions, values = f"{conditions} AND function_id = ?", [*values, selection.function_id]
        if part.by == "key":
            rows, bounds = rows + spanned, [*bounds, *keys]
        else:
            conditions, values = conditions + spanned, [*values, *keys]
        behind, more = _behind(part, place, back)
        return _Statement(
            rows=rows + behind,
            values=(*bounds, *more),
            order=_order(part, back),
            conditions=conditions,
            filters=tuple(values),
        )


class _Statement(Struct, frozen=True, kw_only=True):
    rows: str  #: FROM clause, and the condition for the rows behind a place
    values: tuple[Any, ...]
    order: str
    conditions: str  #: filter for these rows
    filters: tuple[Any, ...]


class _Chunk(Struct, frozen=True, kw_only=True):
    part: int
    by: str
    rows: str  #: FROM clause and filter
    values: tuple[Any, ...]
    first: Place | None  #: in the direction of the search
    last: Place | None
    size: int
    more: bool  #: rows of this part, or further parts, follow


def _parts(db: sqlite3.Connection, selection: Selection) -> dict[int, _Part]:
    """Return the parts of a list that can have rows, by their numbers in places."""
    wanted = selection.states or frozenset(State)
    if not selection.functions:
        return {number: part for number, part in enumerate(_PARTS) if part.states & wanted}
    if wanted <= _FEW.states:
        [unended] = db.execute(f"SELECT count(*) FROM ({_UNENDED} LIMIT {FEW + 1})").fetchone()
        if unended <= FEW:
            return {NEWEST: _FEW}
    return {NEWEST: _ALL}


def _behind(part: _Part, place: Place | None, back: bool) -> tuple[str, tuple[Any, ...]]:
    """Return the SQL condition for the rows of a part that follow a place in the direction of the search."""
    if place is None:
        return "", ()
    _, value, key = place
    side = "<" if part.newest is not back else ">"
    if part.by == "key":
        return f" AND key {side} ?", (key,)
    return f" AND {part.by} {side}= ? AND ({part.by} {side} ? OR key {side} ?)", (value, value, key)


def _order(part: _Part, back: bool) -> str:
    way = " DESC" if part.newest is not back else ""
    return f"key{way}" if part.by == "key" else f"{part.by}{way}, key{way}"


def _place(number: int, by: str, row: tuple[float, int] | None) -> Place | None:
    return None if row is None else (number, 0.0 if by == "key" else row[0], row[1])
