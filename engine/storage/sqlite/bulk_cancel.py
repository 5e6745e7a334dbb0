"""End of many waiting invocations in one transaction on the writer's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from engine.model import DestinationSpec, Outcome
from engine.protocols import WaitingEnd
from engine.storage.sqlite.batch import SQL, Statement
from engine.storage.sqlite.damage import DamageNotes
from engine.storage.sqlite.invocation_writes import cancel
from engine.storage.sqlite.outcome_tables import readable_size
from engine.storage.sqlite.rows import COMPACT_END, END
from engine.storage.sqlite.salvage import store_each

_Ends = dict[int, tuple[int, int] | None]  #: result of ``cancel`` by key


def end_all(db: sqlite3.Connection, keys: Sequence[int], end: WaitingEnd) -> Sequence[tuple[int, int]]:
    """End waiting invocations. Return key and payload size of those that waited."""
    return _found({key: _end(db, END, key, end) for key in keys})


def end_all_isolated(
    db: sqlite3.Connection, notes: DamageNotes, keys: Sequence[int], end: WaitingEnd
) -> Sequence[tuple[int, int]]:
    """Do the same row by row, and leave out the rows on damaged pages. Runs outside a transaction."""
    ends: _Ends = {}
    left, kept = list(keys), {key: readable_size(db, key) for key in keys}
    for sql in (END, COMPACT_END):

        def write(db: sqlite3.Connection, key: int, sql: str = sql) -> None:
            ends[key] = _end(db, sql, key, end, kept[key])

        failed = store_each(db, left, write)
        left = [key for key, _ in failed]
    for key, problem in failed:
        ends[key] = None
        notes.note_index(db, "finished", problem, key=key)
    return _found(ends)


def _end(
    db: sqlite3.Connection, sql: str, key: int, end: WaitingEnd, kept: int | None = None
) -> tuple[int, int] | None:
    found = cancel(db, sql, key, end.outcome, kept, end.state)
    if found is not None and end.deliver_to is not None:
        db.execute(SQL[Statement.ADD_DELIVERY], _delivery(key, found[0], end.deliver_to, end.outcome))
    return found


def _delivery(key: int, function_id: int, to: DestinationSpec, outcome: Outcome) -> tuple[object, ...]:
    return (key, function_id, "failure", to.destination, to.param, outcome.ended_at)


def _found(ends: _Ends) -> Sequence[tuple[int, int]]:
    return [(key, end[1]) for key, end in ends.items() if end is not None]
