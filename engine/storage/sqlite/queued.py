"""Numbers of waiting invocations by function: each reads a limited number of rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from engine.protocols import Queued

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
