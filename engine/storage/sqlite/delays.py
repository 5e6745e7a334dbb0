"""Corrections of due times that were drawn while the clock was far ahead, in steps on the writer's thread."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from itertools import islice

from engine.model.delays import doubtful_after, true_due
from engine.storage.sqlite.damage import DamageNotes, is_damage, read_keys
from engine.storage.sqlite.salvage import store_each

#: The index of delayed rows has the due times, so that only rows with a late one are read.
_WRONG = (
    "SELECT key, first_due, attempt FROM invocation INDEXED BY delayed"
    " WHERE state = 1 AND due > ? AND (key >= ? OR attempt > 1){readable} LIMIT ?"
)
#: Keys of all rows with a late due time, from a position on. Reads the index only.
_LATE = (
    "SELECT due, key FROM invocation INDEXED BY delayed"
    " WHERE state = 1 AND due >= ? AND (due > ? OR key > ?){readable} ORDER BY due, key LIMIT ?"
)
_ROW = "SELECT key, first_due, attempt FROM invocation WHERE key = ? AND state = 1 AND (key >= ? OR attempt > 1)"
_CORRECT = (
    "UPDATE invocation SET rank = rank - (due - ?1), first_due = min(first_due, ?1), due = ?1"
    " WHERE key = ?2 AND state IN (-1, 1)"
)
#: Held rows with keys drawn by a wrong clock, by one index lookup for each function instead of a scan.
_HELD = (
    "WITH RECURSIVE f (id) AS (SELECT min(function_id) FROM invocation WHERE state = -1 UNION ALL"
    " SELECT (SELECT min(function_id) FROM invocation WHERE state = -1 AND function_id > f.id) FROM f"
    " WHERE f.id IS NOT NULL) SELECT key, first_due, attempt FROM f CROSS JOIN invocation INDEXED BY held"
    " WHERE state = -1 AND function_id = f.id AND key >= ?2 AND due > ?1{readable} LIMIT ?3"
)
_Row = tuple[int, float, int]


def correct_due(db: sqlite3.Connection, notes: DamageNotes, now: float, since: float, rows: int) -> int:
    """Set new due times for up to ``rows`` invocations, and return their number."""
    sql = _WRONG.format(readable=notes.readable)
    found: list[_Row] = db.execute(sql, (*doubtful_after(now), rows)).fetchall()
    if len(found) < rows:
        sql = _HELD.format(readable=notes.readable)
        found += db.execute(sql, (*doubtful_after(now), rows - len(found))).fetchall()
    for row in found:
        _correct(db, row, now, since)
    return len(found)


def correct_due_isolated(db: sqlite3.Connection, notes: DamageNotes, now: float, since: float, rows: int) -> int:
    """Do the same row by row, and leave out the rows that cannot be read. Runs outside a transaction."""
    found = list(islice(_each_wrong(db, notes, now, rows), rows))
    failed = store_each(db, found, lambda db, row: _correct(db, row, now, since))
    for row, refusal in failed:
        notes.note_index(db, "delayed", refusal, key=row[0])
    return len(found) - len(failed)


def _each_wrong(db: sqlite3.Connection, notes: DamageNotes, now: float, rows: int) -> Iterator[_Row]:
    """Yield the invocations with a wrong due time that can be read. Note the others."""
    due_after, key_from = doubtful_after(now)
    due, last = due_after, math.inf
    while True:
        late, error = read_keys(db, _LATE.format(readable=notes.readable), (due, due, last, rows))
        if error is not None:
            notes.note_index(db, "delayed", error)
        for _, key in late:
            if notes.covers(key, ("invocation",)):
                continue  # noted for another row of the same page
            try:
                yield from db.execute(_ROW, (key, key_from)).fetchall()
            except sqlite3.DatabaseError as problem:
                if not is_damage(problem):
                    raise
                notes.note_row(db, key, problem)
        if len(late) < rows:
            return
        due, last = late[-1]


def _correct(db: sqlite3.Connection, row: _Row, now: float, since: float) -> None:
    key, first_due_at, attempt = row
    db.execute(_CORRECT, (true_due(key, first_due_at, attempt, now=now, since=since), key))
