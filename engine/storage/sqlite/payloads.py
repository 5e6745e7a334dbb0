"""Payloads on disk, in the table ``payload`` and in older ones that were set aside.

SQLite reads the last page of a table to append a row. If this page of ``payload`` is damaged, ``set_aside`` renames the
table, and an empty one takes its name. No row is copied, and writes of new payloads stay as they are. Reads look for a
payload in the new table first. A key that the new table has must never be searched in an older one, because the search
for the newest keys ends on the damaged page.

A migration that changes ``payload`` must change the older tables, too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from engine.storage.sqlite.rows import BODY

#: Names of the older tables, newest first.
OLDER = (
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'payload_[0-9]*'"
    " ORDER BY CAST(substr(name, 9) AS INTEGER) DESC"
)


def older_tables(db: sqlite3.Connection) -> list[str]:
    return [name for [name] in db.execute(OLDER)]


def set_aside(db: sqlite3.Connection) -> str:
    """Rename the table of payloads and create an empty one. Return the new name of the old one.

    Runs outside a transaction.
    """
    name = f"payload_{len(older_tables(db)) + 1}"
    db.execute("BEGIN IMMEDIATE")
    [sql] = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'payload'").fetchone()
    db.execute(f"ALTER TABLE payload RENAME TO {name}")
    db.execute(sql)
    db.execute("COMMIT")
    return name


def with_older_payload(db: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of columns ``RUNNABLE`` without a payload, with the one that an older table has."""
    for name in older_tables(db):
        found = db.execute(f"SELECT body, sum FROM {name} WHERE key = ?", (row[0],)).fetchone()
        if found is not None:
            return (*row[:BODY], *found, *row[BODY + 2 :])
    return row


def delete_payloads(db: sqlite3.Connection, keys: Sequence[tuple[int]]) -> None:
    older = older_tables(db)
    if not older:
        db.executemany("DELETE FROM payload WHERE key = ?", keys)
        return
    for key in keys:
        any(db.execute(f"DELETE FROM {name} WHERE key = ?", key).rowcount for name in ("payload", *older))
