"""Payloads on disk, in the table ``payload`` and in older ones that were set aside, see ``older_tables``.

Reads look for a payload in the new table first. A key that the new table has must never be searched in an older one,
because the search for the newest keys ends on the damaged page. The search for older keys may end on a damaged page of
a newer table, so it goes on in the older ones.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from engine.storage.sqlite.older_tables import older_tables
from engine.storage.sqlite.rows import BODY

_PAYLOAD = "SELECT body, sum FROM {} WHERE key = ?"


def payload_tables(db: sqlite3.Connection) -> list[str]:
    """Return the names of all tables with payloads, newest first."""
    return ["payload", *(older.name for older in older_tables(db, "payload"))]


def with_older_payload(db: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of columns ``RUNNABLE`` without a payload, with the one that an older table has.

    Raises the error of SQLite at the first damaged page, so that it may be called in a transaction.
    """
    for name in payload_tables(db)[1:]:
        found = db.execute(_PAYLOAD.format(name), (row[0],)).fetchone()
        if found is not None:
            return _with(row, found)
    return row


def with_payload(db: sqlite3.Connection, row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a row of columns ``RUNNABLE`` without a payload, with the one that ``find_payload`` returns."""
    found = find_payload(db, row[0])
    return row if found is None else _with(row, found)


def find_payload(db: sqlite3.Connection, key: int) -> tuple[Any, ...] | None:
    """Return the payload of an invocation and its checksum, from any of the tables; None if no table has it.

    A damaged page is an error only if no other table has the payload. Runs outside a transaction, see ``damage``.
    """
    damage: sqlite3.DatabaseError | None = None
    for name in payload_tables(db):
        try:
            found: tuple[Any, ...] | None = db.execute(_PAYLOAD.format(name), (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            damage = damage or error
            continue
        if found is not None:
            return found
    if damage is not None:
        raise damage
    return None


def _with(row: tuple[Any, ...], payload: tuple[Any, ...]) -> tuple[Any, ...]:
    return (*row[:BODY], *payload, *row[BODY + 2 :])


def delete_payloads(db: sqlite3.Connection, keys: Sequence[tuple[int]]) -> None:
    tables = payload_tables(db)
    if len(tables) == 1:
        db.executemany("DELETE FROM payload WHERE key = ?", keys)
        return
    for key in keys:
        for name in tables:
            if db.execute(f"DELETE FROM {name} WHERE key = ?", key).rowcount:
                break  # a further search could end on a damaged page
