"""End of many waiting invocations in one transaction on the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.model import Outcome
from engine.storage.sqlite.damage import DamageNotes
from engine.storage.sqlite.invocation_writes import cancel
from engine.storage.sqlite.rows import COMPACT_END, END
from engine.storage.sqlite.salvage import store_each

_Ends = dict[int, tuple[int, int] | None]  #: result of ``cancel`` by key


def cancel_all(db: sqlite3.Connection, keys: Sequence[int], outcome: Outcome) -> Sequence[tuple[int, int]]:
    """End waiting invocations. Return key and payload size of those that waited."""
    return _found({key: cancel(db, END, key, outcome) for key in keys})


def cancel_all_isolated(
    db: sqlite3.Connection, notes: DamageNotes, keys: Sequence[int], outcome: Outcome
) -> Sequence[tuple[int, int]]:
    """Do the same row by row, and leave out the rows on damaged pages. Runs outside a transaction."""
    ends: _Ends = {}
    left = list(keys)
    for sql in (END, COMPACT_END):

        def write(db: sqlite3.Connection, key: int, sql: str = sql) -> None:
            ends[key] = cancel(db, sql, key, outcome)

        failed = store_each(db, left, write)
        left = [key for key, _ in failed]
    for key, problem in failed:
        ends[key] = None
        notes.note_index(db, "finished", problem, key=key)
    return _found(ends)


def _found(ends: _Ends) -> Sequence[tuple[int, int]]:
    return [(key, end[1]) for key, end in ends.items() if end is not None]
