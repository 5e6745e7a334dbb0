"""Replacement of the table of the status log, which SQLite appends to only if its last page can be read."""

from __future__ import annotations

import sqlite3

import structlog

from engine.storage.sqlite.damage import is_damage, read_keys

log = structlog.get_logger("functiond.journal")


def set_states_aside(db: sqlite3.Connection) -> None:
    """Replace the table of entries if it has a damaged page, so that states can change and be logged again.

    The old table stays in the file as ``status_log_1`` and so on. Nothing reads it any more. Runs outside a
    transaction.
    """
    _, error = read_keys(db, "SELECT count(*), sum(length(message)), max(entry_id) FROM status_log", ())
    if error is None:
        return
    [number] = db.execute("SELECT 1 + count(*) FROM sqlite_schema WHERE name GLOB 'status_log_[0-9]*'").fetchone()
    [sql] = db.execute("SELECT sql FROM sqlite_schema WHERE name = 'status_log'").fetchone()
    db.execute("BEGIN IMMEDIATE")
    try:
        db.execute(f"ALTER TABLE status_log RENAME TO status_log_{number}")
        db.execute(sql)
        db.execute("COMMIT")
    except sqlite3.DatabaseError as problem:
        db.rollback()
        if not is_damage(problem):
            raise
        return
    log.error("states are lost that were not in their log stream yet: a page of them is damaged", problem=str(error))
