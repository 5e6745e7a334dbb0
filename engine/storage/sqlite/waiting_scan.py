"""Scan of waiting invocations in steps, their numbers, and the place of one. Each reads a limited number of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from engine.protocols import Place, Queued, Scan, Selection, Standing
from engine.storage.sqlite.ordering import PREDECESSOR
from engine.storage.sqlite.rows import HELD, READY, RUNNING
from engine.storage.sqlite.selections import filters, span

SCANNED = 5000  #: rows that one step reads, whether they match or not

#: Column that sorts a part, the FROM clause of the part, and the condition on the function.
_PARTS = (
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


def scan_waiting(db: sqlite3.Connection, selection: Selection, after: Place, limit: int) -> Scan:
    """Return up to ``limit`` keys of waiting invocations that match, from behind the place ``after``.

    The index of delayed rows has those of all functions, so rows of other functions are read, too.
    """
    part, value, key = after
    keys, left = list[int](), SCANNED
    while part < len(_PARTS):
        sql, values = _statement(selection, part)
        for key_read, value_read, matches in db.execute(sql, (*values, value, value, key, left)):
            left -= 1
            if matches:
                keys.append(key_read)
            if len(keys) == limit or not left:
                return Scan(keys=tuple(keys), reached=(part, value_read, key_read))
        part, value, key = part + 1, float("-inf"), 0
    return Scan(keys=tuple(keys), reached=None)


def read_standing(db: sqlite3.Connection, key: int, most: int) -> Standing:
    """Return the place of an invocation. At most ``most`` invocations before it are counted."""
    sql = "SELECT function_id, rank, state, begun FROM invocation WHERE key = ?"
    function_id, rank, state, begun = db.execute(sql, (key,)).fetchone() or (0, 0.0, None, 0)
    if state == HELD:
        return Standing(predecessor=db.execute(PREDECESSOR, (key,)).fetchone()[0])
    if state != READY:
        return Standing(begun=state == RUNNING and bool(begun))
    [ahead] = db.execute(
        "SELECT count(*) FROM (SELECT 1 FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ?"
        " AND rank <= ? AND (rank < ? OR key < ?) LIMIT ?)",
        (function_id, rank, rank, key, most),
    ).fetchone()
    return Standing(ahead=ahead)


def read_queued(db: sqlite3.Connection, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
    """Return what waits of each function."""
    next_due: dict[int, float] = dict(db.execute(_NEXT, (most,)).fetchall())
    found = {}
    for one in functions:
        [ready] = db.execute(_READY, (one, most)).fetchone()
        [held] = db.execute(_HELD, (one, most)).fetchone()
        first, first_due = db.execute(_FIRST, (one,)).fetchone() or (None, 0.0)
        found[one] = Queued(ready=ready, held=held, first=first, first_due=first_due, next_due=next_due.get(one))
    return found


def _statement(selection: Selection, part: int) -> tuple[str, list[Any]]:
    column, source, own = _PARTS[part]
    spanned, values = span(selection)
    conditions, more = filters(selection, frozenset())
    values += more
    values.append(selection.function_id)
    sql = (
        f"SELECT key, {column}, (true{spanned}{conditions}{own}) FROM invocation {source}"
        f" AND {column} >= ? AND ({column} > ? OR key > ?) ORDER BY {column}, key LIMIT ?"
    )
    return sql, values
