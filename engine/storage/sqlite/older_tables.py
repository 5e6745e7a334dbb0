"""Tables that were set aside because of a damaged page, beside the newer ones that took their names.

SQLite reads a page of a table to add a row to it. If this page of ``payload``, ``result`` or ``attempt`` is damaged,
``set_aside`` renames the table to ``payload_1`` and so on, and an empty one takes its name. No row is copied, and
statements that write new rows stay as they are.

An older table has no rows of invocations that were stored after it was set aside. The largest key before is kept in the
table ``meta``, under the name of the older table. Everything is in the database, so that a copy or another engine that
takes over finds the same tables.
"""

from __future__ import annotations

import sqlite3

from msgspec import Struct

#: Tables that can be set aside.
RENAMED = ("payload", "result", "attempt")
#: Names of the older tables, newest first, and the largest key of an invocation that can have a row there.
OLDER = (
    "SELECT s.name, coalesce(m.value, 9223372036854775807) FROM sqlite_schema s LEFT JOIN meta m ON m.name = s.name"
    " WHERE s.type = 'table' AND s.name GLOB ?1 || '_[0-9]*'"
    " ORDER BY CAST(substr(s.name, length(?1) + 2) AS INTEGER) DESC"
)


class Older(Struct, frozen=True):
    name: str
    until: int


def older_tables(db: sqlite3.Connection, table: str) -> list[Older]:
    """Return the older tables of a table, newest first."""
    return [Older(*row) for row in db.execute(OLDER, (table,))]


def set_aside(db: sqlite3.Connection, table: str) -> Older:
    """Rename a table and create an empty one. Return the old one under its new name.

    Runs outside a transaction. Raises the error of SQLite, with the transaction open, if nothing can be created.
    """
    name = f"{table}_{len(older_tables(db, table)) + 1}"
    until = _last_key(db)
    db.execute("BEGIN IMMEDIATE")
    [sql] = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?", (table,)).fetchone()
    db.execute(f"ALTER TABLE {table} RENAME TO {name}")
    db.execute(sql)
    if until is not None:
        db.execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, until))
    db.execute("COMMIT")
    return next(older for older in older_tables(db, table) if older.name == name)


def add_missing_columns(db: sqlite3.Connection) -> None:
    """Add columns to older tables that a migration has added to the newer ones."""
    for table in RENAMED:
        for older in older_tables(db, table):
            present = {name for name, *_ in _columns(db, older.name)}
            for name, kind, required, default in _columns(db, table):
                if name not in present:
                    rest = f"{' NOT NULL' if required else ''}{'' if default is None else f' DEFAULT {default}'}"
                    db.execute(f"ALTER TABLE {older.name} ADD COLUMN {name} {kind}{rest}")


def _columns(db: sqlite3.Connection, table: str) -> list[tuple[str, str, int, str | None]]:
    return db.execute("SELECT name, type, [notnull], dflt_value FROM pragma_table_info(?)", (table,)).fetchall()


def _last_key(db: sqlite3.Connection) -> int | None:
    """Return the largest key of an invocation, or None if its page cannot be read."""
    try:
        [key] = db.execute("SELECT coalesce(max(key), 0) FROM invocation").fetchone()
    except sqlite3.DatabaseError:
        return None
    return int(key)
