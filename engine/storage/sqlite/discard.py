"""Discarding of a deleted function's waiting invocations, in steps of a few milliseconds on the writer's thread."""

from __future__ import annotations

import sqlite3

from engine.model import Outcome, State
from engine.protocols import Discarded
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.rows import STORED


def discard(
    db: sqlite3.Connection, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome
) -> Discarded:
    """End up to ``rows`` ready invocations of a function, then read up to ``rows`` delayed ones if fewer were ready.

    The read of delayed rows starts after the position ``after`` and includes all functions, because the index of
    delayed rows is ordered by due time only. Delayed rows of other functions are skipped.
    """
    ready = db.execute(
        "SELECT key, size FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ? LIMIT ?",
        (function_id, rows),
    ).fetchall()
    if len(ready) == rows:
        return _end(db, function_id, ready, after, outcome)
    scanned = db.execute(
        "SELECT key, size, function_id, due FROM invocation INDEXED BY delayed"
        " WHERE state = 1 AND due >= ? AND (due > ? OR key > ?) ORDER BY due, key LIMIT ?",
        (after[0], after[0], after[1], rows),
    ).fetchall()
    delayed = [(key, size) for key, size, owner, _ in scanned if owner == function_id]
    reached = (scanned[-1][3], scanned[-1][0]) if len(scanned) == rows else None
    return _end(db, function_id, [*ready, *delayed], reached, outcome)


def _end(
    db: sqlite3.Connection,
    function_id: int,
    found: list[tuple[int, int]],
    reached: tuple[float, int] | None,
    outcome: Outcome,
) -> Discarded:
    size, end = sum(size for _, size in found), (STORED[State.DISCARD], outcome.ended_at, outcome.code, outcome.message)
    kept = 0  #: bytes of results and logs of earlier attempts
    for key, _ in found:
        db.execute("UPDATE invocation SET state = ?, ended = ?, code = ?, message = ? WHERE key = ?", (*end, key))
        row = db.execute("SELECT length(body) + length(log) FROM result WHERE key = ?", (key,)).fetchone()
        kept += row[0] if row else 0
    if found:
        tally = [(function_id, -len(found), -size), (0, len(found), size + kept)]
        db.executemany(SQL[Statement.TALLY], tally)
    return Discarded(keys=tuple(key for key, _ in found), size=size, reached=reached)
