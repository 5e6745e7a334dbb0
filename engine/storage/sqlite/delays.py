"""Corrections of due times that were drawn while the clock was far ahead, in steps on the writer's thread."""

from __future__ import annotations

import sqlite3

from engine.model.delays import doubtful_after, true_due

#: The index of delayed rows has the due times, so that only rows with a late one are read.
_WRONG = (
    "SELECT key, first_due, attempt FROM invocation INDEXED BY delayed"
    " WHERE state = 1 AND due > ? AND (key >= ? OR attempt > 1) LIMIT ?"
)
_CORRECT = (
    "UPDATE invocation SET rank = rank - (due - ?1), first_due = min(first_due, ?1), due = ?1"
    " WHERE key = ?2 AND state IN (-1, 1)"
)
#: Held rows with keys drawn by a wrong clock, by one index lookup for each function instead of a scan.
_HELD = (
    "WITH RECURSIVE f (id) AS (SELECT min(function_id) FROM invocation WHERE state = -1 UNION ALL"
    " SELECT (SELECT min(function_id) FROM invocation WHERE state = -1 AND function_id > f.id) FROM f"
    " WHERE f.id IS NOT NULL) SELECT key, first_due, attempt FROM f CROSS JOIN invocation INDEXED BY held"
    " WHERE state = -1 AND function_id = f.id AND key >= ?2 AND due > ?1 LIMIT ?3"
)
_Row = tuple[int, float, int]


def correct_due(db: sqlite3.Connection, now: float, since: float, rows: int) -> int:
    """Set new due times for up to ``rows`` invocations, and return their number."""
    found: list[_Row] = db.execute(_WRONG, (*doubtful_after(now), rows)).fetchall()
    if len(found) < rows:
        found += db.execute(_HELD, (*doubtful_after(now), rows - len(found))).fetchall()
    for row in found:
        _correct(db, row, now, since)
    return len(found)


def _correct(db: sqlite3.Connection, row: _Row, now: float, since: float) -> None:
    key, first_due_at, attempt = row
    db.execute(_CORRECT, (true_due(key, first_due_at, attempt, now=now, since=since), key))
