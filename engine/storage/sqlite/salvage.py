"""Writes that met a damaged page, stored as far as the page allows.

SQLite refuses all further writes of a transaction after a statement has met a damaged page. Each try is therefore a
transaction of its own. A change of a row can meet a damaged page beside its own: a row that grows may not fit on its
page, and SQLite then reads the neighbours. The end of an invocation is therefore also tried in a *compact* form, which
does not let the row grow.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import TypeVar

import structlog

from engine.errors import NotStored
from engine.storage.sqlite.batch import CallRequest, Row, Statement, WriteRequest, WritingConnection
from engine.storage.sqlite.damage import ADVICE, INDEXES, DamageNotes, is_damage, read_keys
from engine.storage.sqlite.delivery_table import renew
from engine.storage.sqlite.older_tables import set_aside
from engine.storage.sqlite.outcome_tables import TABLE_OF, make_way
from engine.storage.sqlite.rebuild import note_side_indexes
from engine.storage.sqlite.status_table import set_states_aside

T = TypeVar("T")
log = structlog.get_logger("functiond.journal")

#: Least seconds between two reads of all indexes of deliveries and idempotency keys, which may be long.
WALK_INTERVAL = 60.0
#: Statements whose rows may be left out, with the tables that they write.
_OPTIONAL = {**TABLE_OF, Statement.STATUS: "status_log", Statement.RELEASE: "ordering"}
#: Forms of statements that store less, so that the row does not grow. Rank and first due time are not needed any more,
#: except for the order and age of retries.
_COMPACT = {
    Statement.FINISH: (
        "UPDATE invocation SET state = ?1, failures = ?3, ended = ?5, code = ?6, message = '', rank = 0, first_due = 0"
        " WHERE key = ?8"
    ),
    Statement.RETRY: (
        "UPDATE invocation SET state = 1, attempt = ?1, failures = ?2, rank = 0, due = ?4, code = ?5, message = ''"
        " WHERE key = ?7"
    ),
}
_FORMS: tuple[dict[Statement, str], ...] = ({}, _COMPACT)
#: Tables whose rows are left out if they can be neither written nor set aside.
_LEFT_OUT: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"status_log"}),
    frozenset({"result", "status_log"}),
    frozenset({"attempt", "status_log"}),
    frozenset({"result", "attempt", "status_log"}),
    frozenset({"ordering"}),
    frozenset({"result", "attempt", "status_log", "ordering"}),
)
#: Statements for one held invocation of an ordering key: the first that is not noted, and its release.
_FIRST_HELD = (
    "SELECT key FROM invocation INDEXED BY ordering WHERE function_id = ? AND ordering_key = ? AND state = -1"
    " AND state < 3{readable} ORDER BY key LIMIT 1"
)
_RELEASE_ONE = "UPDATE invocation SET state = 1 WHERE key = ? AND state = -1"


def in_transaction(db: sqlite3.Connection, write: Callable[[], T]) -> T:
    """Return the result of ``write`` after a transaction of its own. An error leaves the transaction open."""
    db.execute("BEGIN IMMEDIATE")
    value = write()
    db.execute("COMMIT")
    return value


def store_each(
    db: sqlite3.Connection, items: Iterable[T], write: Callable[[sqlite3.Connection, T], object]
) -> list[tuple[T, Exception]]:
    """Write all items in one transaction, except those that meet a damaged page. Return these with their errors."""
    left, failed = list(items), list[tuple[T, Exception]]()
    while left:
        current = left[0]
        try:
            db.execute("BEGIN IMMEDIATE")
            for current in left:
                write(db, current)
            db.execute("COMMIT")
            break
        except sqlite3.DatabaseError as error:
            db.rollback()
            if not is_damage(error):
                raise
            left.remove(current)
            failed.append((current, error))
    return failed


class Salvage:
    """Last step for write requests that met a damaged page, see ``WritingConnection``."""

    def __init__(self, notes: DamageNotes) -> None:
        self._notes = notes
        self._next_walk = 0.0  #: time on the monotonic clock before which indexes are not read as a whole again

    def __call__(self, db: WritingConnection, request: WriteRequest, error: Exception) -> None:
        """Store a request as far as the page allows, and set its ``value`` or ``error``. Raise errors of the disk."""
        _make_way(db, self._notes)
        _make_way_for_deliveries(db, self._notes)
        set_states_aside(db)
        if monotonic() >= self._next_walk:
            note_side_indexes(db, self._notes)
            self._next_walk = monotonic() + WALK_INTERVAL
        if not isinstance(request, CallRequest):
            make_way(db, self._notes, request.rows)
            stored = _store_rows(db, self._notes, request.rows)
            if not stored and not request.retry_until_stored:
                request.error = _refused(error)
        elif request.isolated is not None:
            request.value = request.isolated(db)
        else:
            _call_again(db, request, error)


def _make_way(db: sqlite3.Connection, notes: DamageNotes) -> None:
    """Set the table of payloads aside if its newest page is damaged. Note the rows of a damaged newest page."""
    others = {"payload": "invocation", "invocation": "payload"}
    for table, other in others.items():
        _, error = read_keys(db, f"SELECT max(key) FROM {table}", ())
        if error is None:
            continue
        if table == "payload":
            try:
                older = set_aside(db, table)
            except sqlite3.DatabaseError as problem:
                db.rollback()
                if not is_damage(problem):
                    raise
            else:
                event = "newest page of payloads is damaged: new ones go to a new table"
                log.error(event, renamed=older.name, advice=ADVICE)
        newest, _ = read_keys(db, f"SELECT key FROM {other} ORDER BY key DESC LIMIT 1", ())
        for [key] in newest:
            notes.note_row(db, key, error)


def _make_way_for_deliveries(db: sqlite3.Connection, notes: DamageNotes) -> None:
    """Renew the table of deliveries if its newest page is damaged, and note the deliveries that cannot be read."""
    _, error = read_keys(db, "SELECT max(owed_id) FROM owed", ())
    if error is None:
        return
    try:
        lost = renew(db)
    except sqlite3.DatabaseError as problem:
        db.rollback()
        if not is_damage(problem):
            raise
        return
    event = "newest page of deliveries is damaged: the others were copied to a new table"
    log.error(event, unreadable=len(lost), advice=ADVICE)
    for delivery_id in lost:
        notes.note(db, "owed", delivery_id, delivery_id, error)


def _call_again(db: sqlite3.Connection, request: CallRequest, error: Exception) -> None:
    """Make a call once more, in a transaction of its own, because new payloads may have another table now."""
    try:
        request.value = in_transaction(db, lambda: request.call(db))
        request.error = None
    except sqlite3.DatabaseError as problem:
        db.rollback()
        if not is_damage(problem):
            raise
        # an undecodable row is reported as it is
        request.error = error if isinstance(error, sqlite3.OperationalError) else _refused(error)


def _refused(error: Exception) -> NotStored:
    return NotStored(f"a page of the journal is damaged ({error}); see /healthz for the next step")


def _store_rows(db: WritingConnection, notes: DamageNotes, rows: Sequence[tuple[Statement, Row]]) -> bool:
    """Store the rows of one request that met a damaged page, without those that cannot be written.

    If the state of the invocation cannot be written, nothing is stored, and False is returned. The invocation is then
    left out of windows, and its rows stay as they were before.
    """
    error: sqlite3.DatabaseError | None = None
    for compact in _FORMS:
        for left_out in _LEFT_OUT:
            kept = [(statement, row) for statement, row in rows if _OPTIONAL.get(statement) not in left_out]
            try:
                _transact(db, kept, compact)
            except sqlite3.DatabaseError as problem:
                db.rollback()
                if not is_damage(problem):
                    raise
                error = error or problem
                continue
            if left_out and error is not None:
                log.error("outcome stored without what cannot be written", left_out=sorted(left_out))
                notes.note_row(db, _key_of(rows), error)
            if "ordering" in left_out:
                for function_id, ordering_key, _ in (row for statement, row in rows if statement is Statement.RELEASE):
                    _release_readable(db, notes, function_id, ordering_key)
            return True
    if error is not None and rows[0][0] is not Statement.START:  # without its start, an invocation can still end
        _note_unwritable(db, notes, rows, error)
    return False


def _release_readable(db: WritingConnection, notes: DamageNotes, function_id: int, ordering_key: str) -> None:
    """Release the first held invocation of a key whose row can be written. Note those that cannot."""
    while True:
        held, error = read_keys(db, _FIRST_HELD.format(readable=notes.readable), (function_id, ordering_key))
        if error is not None:
            notes.note_index(db, "ordering", error)
        failed = store_each(db, [key for [key] in held], lambda db, key: db.execute(_RELEASE_ONE, (key,)))
        before = notes.ranges
        for key, problem in failed:
            notes.note_row(db, key, problem)
        if not failed or notes.ranges == before:
            return


def _transact(db: WritingConnection, rows: Sequence[tuple[Statement, Row]], compact: dict[Statement, str]) -> None:
    db.execute("BEGIN IMMEDIATE")
    for statement, row in rows:
        if statement in compact:
            db.execute(compact[statement], row)
    db.run_rows([WriteRequest(tuple(each for each in rows if each[0] not in compact))])
    db.execute("COMMIT")


def _note_unwritable(
    db: sqlite3.Connection, notes: DamageNotes, rows: Sequence[tuple[Statement, Row]], error: BaseException
) -> None:
    """Note why the state of an invocation cannot be written: its own page is damaged, or a page of an index."""
    key, before = _key_of(rows), len(notes.ranges)
    notes.note_row(db, key, error)
    if len(notes.ranges) == before:
        for index in INDEXES:
            notes.note_index(db, index, error, key=key)


def _key_of(rows: Sequence[tuple[Statement, Row]]) -> int:
    statement, row = rows[0]
    return int(row[0] if statement is Statement.APPEND else row[-1])
