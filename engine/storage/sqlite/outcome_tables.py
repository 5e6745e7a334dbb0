"""Results and attempts on disk, in the tables ``result`` and ``attempt`` and in older ones that were set aside.

A newer table is always looked at first: the result of a later attempt replaces the one of an earlier attempt, which may
still be in an older table. Attempts of one invocation may be in several tables.

Invocations end in any order, so a search in an older table may end on its damaged page although the invocation has no
row there. Keys that do are noted as a range under the name of the older table. Such a range is exact, because all keys
of a page are next to each other, so pruning takes its rows for lost and goes on without reading the page again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

import structlog

from engine.storage.sqlite.batch import Row, Statement, WriteRequest, WritingConnection
from engine.storage.sqlite.damage import ADVICE, DamageNotes, is_damage, is_readable, left_out
from engine.storage.sqlite.older_tables import Older, older_tables, set_aside

log = structlog.get_logger("functiond.journal")

#: Statements that write one of the tables.
TABLE_OF = {
    Statement.RESULT: "result",
    Statement.ATTEMPT: "attempt",
    Statement.ATTEMPT_DETAILS: "attempt",
    Statement.UNTALLY_ATTEMPTS: "attempt",
    Statement.DROP_ATTEMPTS: "attempt",
}
_TABLES = ("result", "attempt")
_SIZE = "(SELECT length(body) + length(log) FROM {} WHERE key = {})"
_LOGS = "coalesce((SELECT sum(length(log)) FROM {} WHERE key = {}), 0)"


def size_of_result(db: sqlite3.Connection, key: str, *, noted: bool = True) -> str:
    """Return an SQL expression for the bytes of a result and its log. ``key`` is an SQL expression.

    An older table is read only if no newer one has the result and, unless ``noted`` is false, its page is not noted.
    """
    sizes = [_SIZE.format("result", key)]
    for older in older_tables(db, "result"):
        unless = left_out(key, (older.name,)) if noted else ""
        sizes.append(f"CASE WHEN {key} <= {older.until}{unless} THEN {_SIZE.format(older.name, key)} END")
    return f"coalesce({', '.join(sizes)}, 0)"


def size_of_logs(db: sqlite3.Connection, key: str) -> str:
    """Return an SQL expression for the bytes of the logs in the history of an invocation, except on noted pages."""
    sizes = [_LOGS.format("attempt", key)]
    for older in older_tables(db, "attempt"):
        unless = left_out(key, (older.name,))
        sizes.append(f"CASE WHEN {key} <= {older.until}{unless} THEN {_LOGS.format(older.name, key)} ELSE 0 END")
    return " + ".join(sizes)


def readable_size(db: sqlite3.Connection, key: int) -> int:
    """Return the bytes of a result and its log, or 0 if they are on a damaged page. Runs outside a transaction."""
    try:
        [size] = db.execute(f"SELECT {size_of_result(db, '?1')}", (key,)).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return 0
    return int(size)


def make_way(db: WritingConnection, notes: DamageNotes, rows: Iterable[tuple[Statement, Row]]) -> None:
    """Set those tables aside that cannot take the rows of a request. Runs outside a transaction."""
    for statement, row in rows:
        table = TABLE_OF.get(statement)
        if table is None or (error := _refusal(db, statement, row)) is None:
            continue
        try:
            older = set_aside(db, table)
        except sqlite3.DatabaseError as problem:
            db.rollback()
            if not is_damage(problem):
                raise
            continue  # the rows are left out, see ``salvage``
        log.error(f"a page of {table}s is damaged: new ones go to a new table", renamed=older.name, advice=ADVICE)
        notes.move(db, table, older.name)
        note(db, notes, older, int(row[0]), error)


def _refusal(db: WritingConnection, statement: Statement, row: Row) -> sqlite3.DatabaseError | None:
    """Return the error with which SQLite refuses a row because of a damaged page. Nothing is written."""
    db.execute("BEGIN IMMEDIATE")
    try:
        db.run_rows([WriteRequest(((statement, row),))])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return error
    finally:
        db.rollback()
    return None


def note(db: sqlite3.Connection, notes: DamageNotes, older: Older, key: int, error: BaseException) -> None:
    """Note the damaged page of an older table that a search for ``key`` ends on, or only the key if it can be read.

    A key can be read although its row cannot be changed, if a page beside its own is damaged.
    """

    def can_be_read(other: int) -> bool:
        return is_readable(db, older.name, other)

    first = last = key
    if not can_be_read(key):
        first = key - _distance(lambda step: can_be_read(key - step), key)
        last = key + _distance(lambda step: can_be_read(key + step), older.until - key + 1)
    notes.note(db, older.name, first, last, error)


def _distance(can_be_read: Callable[[int], bool], limit: int) -> int:
    """Return the number of keys in one direction that cannot be read. Rows at ``limit`` and behind do not exist."""
    unreadable, step = 0, 1
    while step < limit and not can_be_read(step):
        unreadable, step = step, 2 * step
    step = min(step, limit)
    while step - unreadable > 1:
        middle = (step + unreadable) // 2
        if can_be_read(middle):
            step = middle
        else:
            unreadable = middle
    return unreadable


def note_unreadable(db: sqlite3.Connection, notes: DamageNotes, key: int) -> bool:
    """Note the pages of older tables on which a search for a key ends. Return whether there are new ones.

    Runs outside a transaction.
    """
    found = False
    for older in older_outcomes(db):
        if not has_readable(notes, older, key):
            continue
        try:
            db.execute(f"SELECT * FROM {older.name} WHERE key = ?", (key,)).fetchall()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            note(db, notes, older, key, error)
            found = True
    return found


def delete_outcomes(db: sqlite3.Connection, keys: Sequence[tuple[int]]) -> None:
    """Delete results and attempts from the newest tables."""
    for table in _TABLES:
        db.executemany(f"DELETE FROM {table} WHERE key = ?", keys)


def delete_older_outcomes(db: sqlite3.Connection, notes: DamageNotes, keys: Sequence[int]) -> None:
    """Delete results and attempts from the older tables, except those on noted pages."""
    for older in older_outcomes(db):
        present = [(key,) for key in keys if has_readable(notes, older, key)]
        db.executemany(f"DELETE FROM {older.name} WHERE key = ?", present)


def older_outcomes(db: sqlite3.Connection) -> list[Older]:
    """Return the older tables of results and attempts."""
    return [older for table in _TABLES for older in older_tables(db, table)]


def has_readable(notes: DamageNotes, older: Older, key: int) -> bool:
    """Return whether an older table can have rows of an invocation that are not on a noted page."""
    return key <= older.until and not notes.covers(key, (older.name,))
