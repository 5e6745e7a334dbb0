"""Checks at the start, on the opened database: tables without which no engine can run, and indexes to rebuild.

Only small tables are read whole. Tables that grow with the number of invocations are not, so that a start takes the
same time with a million of them.
"""

from __future__ import annotations

import sqlite3

from engine.storage.sqlite.damage import DamageNotes, read_keys
from engine.storage.sqlite.older_tables import add_missing_columns
from engine.storage.sqlite.rebuild import rebuild, rebuild_noted

#: Tables that are read at the start, and whose loss would change functions, triggers or the identity of the journal.
CATALOG = ("meta", "function", "function_version", "async_settings", "resource", "cursor", "tally")
_INDEXES = {"resource": "resource_owner"}


def check_start(db: sqlite3.Connection, notes: DamageNotes) -> str:
    """Load the notes and rebuild noted indexes. Return why the engine cannot run on this database, or an empty text.

    Runs outside a transaction.
    """
    for table in CATALOG:
        problem = _problem(db, table)
        if problem and table in _INDEXES:
            rebuild(db, notes, _INDEXES[table])
            problem = _problem(db, table)
        if problem:
            return f"the table {table} is damaged ({problem})"
    _, error = read_keys(db, "SELECT max(key) FROM invocation", ())
    if error is not None:
        return f"the newest page of the table invocation is damaged, so the last request id is unknown ({error})"
    add_missing_columns(db)
    notes.load(db)
    notes.recheck(db)
    rebuild_noted(db, notes)
    return ""


def _problem(db: sqlite3.Connection, table: str) -> str:
    try:
        [first] = db.execute(f"PRAGMA integrity_check({table})").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if first == "ok" else " ".join(str(first).split())
