"""Discarding of a deleted function's waiting invocations, in steps of a few milliseconds on the writer's thread."""

from __future__ import annotations

import sqlite3

from engine.model import Outcome, State
from engine.protocols import Discarded
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.rows import END, RESULT_SIZE, end_row

_Found = tuple[int, int, int]  #: key, bytes of the payload, and those of result and log of an earlier attempt

_KEPT = f"CASE WHEN attempt > 1 THEN {RESULT_SIZE.format('invocation.key')} ELSE 0 END"
_READY = f"SELECT key, size, {_KEPT} FROM invocation INDEXED BY ready WHERE state = 0 AND function_id = ? LIMIT ?"
_HELD = "SELECT key, size, 0 FROM invocation INDEXED BY held WHERE state = -1 AND function_id = ? LIMIT ?"
_DELAYED = (
    f"SELECT key, size, {_KEPT}, function_id, due FROM invocation INDEXED BY delayed"
    " WHERE state = 1 AND due >= ? AND (due > ? OR key > ?) ORDER BY due, key LIMIT ?"
)


def discard(
    db: sqlite3.Connection, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome
) -> Discarded:
    """End up to ``rows`` ready and ``rows`` held invocations of a function. If these were all, read delayed ones.

    The read of delayed rows starts after the position ``after`` and includes all functions, because the index of
    delayed rows is ordered by due time only. Delayed rows of other functions are skipped.
    """
    ready: list[_Found] = db.execute(_READY, (function_id, rows)).fetchall()
    held: list[_Found] = db.execute(_HELD, (function_id, rows)).fetchall()
    reached, delayed = after, list[_Found]()
    last = max(len(ready), len(held)) < rows
    if last:
        scanned = db.execute(_DELAYED, (after[0], after[0], after[1], rows)).fetchall()
        delayed = [tuple(found) for *found, owner, _ in scanned if owner == function_id]
        last = len(scanned) < rows
        reached = after if last else (scanned[-1][-1], scanned[-1][0])
    found = [*ready, *held, *delayed]
    for key, size, kept in found:
        db.execute(END, end_row(key, State.DISCARD, outcome))
        db.executemany(SQL[Statement.TALLY], [(function_id, -1, -size), (0, 1, size + kept)])
    return Discarded(
        keys=tuple(key for key, *_ in found),
        size=sum(size for _, size, _ in found),
        reached=None if last else reached,
    )
