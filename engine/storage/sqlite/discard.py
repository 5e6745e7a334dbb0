"""Discarding of a deleted function's waiting invocations, in steps of a few milliseconds on the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.model import Outcome, State
from engine.protocols import Discarded
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.damage import DamageNotes, is_damage, read_keys
from engine.storage.sqlite.outcome_tables import readable_size, size_of_result
from engine.storage.sqlite.rows import COMPACT_END, END, STORED
from engine.storage.sqlite.salvage import store_each

_Found = tuple[int, int, int]  #: key, bytes of the payload, and those of result and log of an earlier attempt

_READY = "SELECT {columns} FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ?{readable} LIMIT ?"
_HELD = "SELECT {columns} FROM invocation INDEXED BY held WHERE state = -1 AND function_id = ?{readable} LIMIT ?"
_SIZE = "SELECT size, attempt FROM invocation WHERE key = ? AND function_id = ?"
_DELAYED = (
    "SELECT {columns} FROM invocation INDEXED BY delayed"
    " WHERE state = 1 AND due >= ? AND (due > ? OR key > ?){readable} ORDER BY due, key LIMIT ?"
)


def discard(
    db: sqlite3.Connection,
    notes: DamageNotes,
    function_id: int,
    after: tuple[float, int],
    rows: int,
    outcome: Outcome,
) -> Discarded:
    """End up to ``rows`` ready and ``rows`` held invocations of a function. If these were all, read delayed ones.

    The read of delayed rows starts after the position ``after`` and includes all functions, because the index of
    delayed rows is ordered by due time only. Delayed rows of other functions are skipped.
    """
    kept = f"CASE WHEN attempt > 1 THEN {size_of_result(db, 'invocation.key')} ELSE 0 END"
    sql = _READY.format(columns=f"key, size, {kept}", readable=notes.readable)
    ready: list[_Found] = db.execute(sql, (function_id, rows)).fetchall()
    sql = _HELD.format(columns="key, size, 0", readable=notes.readable)
    held: list[_Found] = db.execute(sql, (function_id, rows)).fetchall()
    reached, delayed = after, list[_Found]()
    last = max(len(ready), len(held)) < rows
    if last:
        sql = _DELAYED.format(columns=f"key, size, {kept}, function_id, due", readable=notes.readable)
        scanned = db.execute(sql, (after[0], after[0], after[1], rows)).fetchall()
        delayed = [tuple(found) for *found, owner, _ in scanned if owner == function_id]
        last = len(scanned) < rows
        reached = after if last else (scanned[-1][-1], scanned[-1][0])
    found = [*ready, *held, *delayed]
    for one in found:
        _end(db, function_id, one, outcome)
    return _discarded(found, None if last else reached)


def discard_isolated(
    db: sqlite3.Connection,
    notes: DamageNotes,
    function_id: int,
    after: tuple[float, int],
    rows: int,
    outcome: Outcome,
) -> Discarded:
    """Do the same row by row, and leave out the rows that cannot be read. Runs outside a transaction."""
    sql = _READY.format(columns="key", readable=notes.readable)
    ready, error = read_keys(db, sql, (function_id, rows))
    sql = _HELD.format(columns="key", readable=notes.readable)
    held, unreadable = read_keys(db, sql, (function_id, rows))
    if unreadable is not None:
        notes.note_index(db, "held", unreadable)
    delayed, reached = list[tuple[int, ...]](), None
    if error is None and max(len(ready), len(held)) < rows:
        sql = _DELAYED.format(columns="key, due", readable=notes.readable)
        delayed, error = read_keys(db, sql, (after[0], after[0], after[1], rows))
        reached = (float(delayed[-1][1]), delayed[-1][0]) if len(delayed) == rows else None
        if error is not None:
            notes.note_index(db, "delayed", error)
    elif error is not None:
        notes.note_index(db, "ready", error)
    else:
        reached = after
    found = list(_readable(db, notes, function_id, [row[0] for row in (*ready, *held, *delayed)]))
    failed = store_each(db, found, lambda db, one: _end(db, function_id, one, outcome))
    again = [one for one, _ in failed]
    failed = store_each(db, again, lambda db, one: _end(db, function_id, one, outcome, COMPACT_END))
    for (key, *_), problem in failed:
        notes.note_index(db, "finished", problem, key=key)
    lost = {key for (key, *_), _ in failed}
    return _discarded([one for one in found if one[0] not in lost], reached)


def _readable(db: sqlite3.Connection, notes: DamageNotes, function_id: int, keys: Sequence[int]) -> list[_Found]:
    found: list[_Found] = []
    for key in keys:
        try:
            row = db.execute(_SIZE, (key, function_id)).fetchone()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            notes.note_row(db, key, error)
            continue
        if row is not None:
            found.append((key, row[0], readable_size(db, key) if row[1] > 1 else 0))
    return found


def _end(db: sqlite3.Connection, function_id: int, found: _Found, outcome: Outcome, sql: str = END) -> None:
    key, size, kept = found
    end = (STORED[State.DISCARD], outcome.ended_at, outcome.code, outcome.message, key)
    db.execute(sql, end)
    db.executemany(SQL[Statement.TALLY], [(function_id, -1, -size), (0, 1, size + kept)])


def _discarded(found: Sequence[_Found], reached: tuple[float, int] | None) -> Discarded:
    return Discarded(keys=tuple(key for key, *_ in found), size=sum(size for _, size, _ in found), reached=reached)
