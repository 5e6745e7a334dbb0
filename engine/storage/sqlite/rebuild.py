"""Rebuilding of damaged indexes, which takes about a second for a million rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from time import perf_counter

import structlog

from engine.errors.data_errors import RESTORE
from engine.storage.sqlite.damage import DamageNotes, is_damage, read_keys

log = structlog.get_logger("functiond.journal")

#: Query for each index of deliveries and of idempotency keys, as ``_WALKS`` has them.
_SIDE_WALKS = {
    "owed_due": "SELECT count(due) FROM owed INDEXED BY owed_due WHERE due IS NOT NULL",
    "owed_key": "SELECT count(key) FROM owed INDEXED BY owed_key",
    "owed_destination": "SELECT count(destination) FROM owed INDEXED BY owed_destination WHERE due IS NOT NULL",
    "owed_given_up": "SELECT count(function_id) FROM owed INDEXED BY owed_given_up WHERE due IS NULL",
    "idempotency_expires": "SELECT count(expires) FROM idempotency INDEXED BY idempotency_expires",
}
#: Query for each index over invocations that reads the index from its beginning to its end, and no row.
_WALKS = {
    **_SIDE_WALKS,
    "ready": "SELECT count(rank) FROM invocation INDEXED BY ready WHERE state = 0",
    "delayed": "SELECT count(due) FROM invocation INDEXED BY delayed WHERE state = 1",
    "running": "SELECT count(function_id) FROM invocation INDEXED BY running WHERE state = 2",
    "finished": "SELECT count(function_id) FROM invocation INDEXED BY finished WHERE state >= 3",
    "ordering": (
        "SELECT count(ordering_key) FROM invocation INDEXED BY ordering WHERE ordering_key IS NOT NULL AND state < 3"
    ),
    "held": "SELECT count(function_id) FROM invocation INDEXED BY held WHERE state = -1",
    "caused": "SELECT count(cause) FROM invocation INDEXED BY caused WHERE cause IS NOT NULL",
}


def unreadable(db: sqlite3.Connection, index: str) -> sqlite3.DatabaseError | None:
    """Return the error at which a read of the whole index ends; None if all of its pages can be read."""
    try:
        db.execute(_WALKS[index]).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return error
    return None


def read_indexes(db: sqlite3.Connection, indexes: Iterable[str]) -> None:
    """Read whole indexes. Raises the error of SQLite if one has a damaged page."""
    for index in indexes:
        db.execute(_WALKS[index]).fetchone()


def note_unreadable(db: sqlite3.Connection, notes: DamageNotes, indexes: Iterable[str]) -> None:
    """Note those of some indexes that cannot be read as a whole, and are not noted yet."""
    noted = {one.name for one in notes.ranges}
    for index in indexes:
        if index not in noted and (error := unreadable(db, index)) is not None:
            notes.note_index(db, index, error)


def note_side_indexes(db: sqlite3.Connection, notes: DamageNotes) -> None:
    """Note the indexes of deliveries and idempotency keys that cannot be read, and damaged idempotency keys.

    Statements that meet a damaged page do not say which index or table has it.
    """
    note_unreadable(db, notes, sorted(_SIDE_WALKS))
    noted = {one.name for one in notes.ranges}
    _, error = read_keys(db, "SELECT sum(length(digest)) FROM idempotency NOT INDEXED", ())
    if error is not None and "idempotency" not in noted:
        notes.note_next(db, "idempotency", "idempotency keys", error)


def rebuild_noted(db: sqlite3.Connection, notes: DamageNotes) -> None:
    """Rebuild all noted indexes. Tables in the notes are skipped.

    Of several damaged indexes of a table, only the first one met may be noted, so the others are read.
    """
    if any(one.name in _SIDE_WALKS for one in notes.ranges):
        note_side_indexes(db, notes)
    indexes = {name for [name] in db.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    for name in sorted({one.name for one in notes.ranges} & indexes):
        rebuild(db, notes, name)


def rebuild(db: sqlite3.Connection, notes: DamageNotes, name: str) -> None:
    """Rebuild an index and remove its notes. Log an error and leave it as it is if its table is damaged, too."""
    began = perf_counter()
    log.warning("rebuilding a damaged index", index=name)
    try:
        try:
            db.execute(f"REINDEX {name}")
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            _replace(db, name)
    except sqlite3.DatabaseError as error:
        db.rollback()
        if not is_damage(error):
            raise
        advice = RESTORE
        log.error("index cannot be rebuilt: its table is damaged", index=name, problem=str(error), advice=advice)
        return
    notes.clear(db, name)
    log.warning("index rebuilt", index=name, seconds=round(perf_counter() - began, 3))


def _replace(db: sqlite3.Connection, name: str) -> None:
    """Create an index anew. REINDEX fails if it cannot read the pages that it would free, so these stay unused."""
    db.execute("BEGIN IMMEDIATE")
    [sql] = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?", (name,)).fetchone()
    db.execute("PRAGMA writable_schema = ON")
    try:
        db.execute("DELETE FROM sqlite_schema WHERE type = 'index' AND name = ?", (name,))
    finally:
        db.execute("PRAGMA writable_schema = RESET")
    db.execute(sql)
    db.execute("COMMIT")
