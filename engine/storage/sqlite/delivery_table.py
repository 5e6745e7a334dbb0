"""Renewal of the table of deliveries, which SQLite appends to only if its last page can be read.

If this page is damaged, no invocation with a destination could end any more. ``renew`` therefore copies all deliveries
that can be read to a new table, which takes about ten seconds for a million. The old table stays in the file as
``owed_1`` and so on, with the damaged page. Nothing reads it any more.
"""

from __future__ import annotations

import sqlite3

from engine.storage.sqlite.damage import is_damage, read_keys

_IDS = "SELECT owed_id FROM owed INDEXED BY owed_key ORDER BY key, owed_id"
_SCHEMA = "SELECT name, sql FROM sqlite_schema WHERE tbl_name = 'owed' AND sql IS NOT NULL ORDER BY type DESC, name"


def renew(db: sqlite3.Connection) -> list[int]:
    """Replace the table of deliveries and return the ids of those that cannot be read.

    Raises the error of SQLite, and changes nothing, if the index with the ids is damaged. Runs outside a transaction.
    """
    ids, error = read_keys(db, _IDS, ())
    if error is not None:
        raise error
    lost = [delivery_id for [delivery_id] in ids if not _is_readable(db, delivery_id)]
    db.execute("BEGIN IMMEDIATE")
    _replace(db, sorted({*ids} - {(delivery_id,) for delivery_id in lost}))
    db.execute("COMMIT")
    return lost


def _is_readable(db: sqlite3.Connection, delivery_id: int) -> bool:
    try:
        db.execute("SELECT * FROM owed WHERE owed_id = ?", (delivery_id,)).fetchone()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return False
    return True


def _replace(db: sqlite3.Connection, kept: list[tuple[int, ...]]) -> None:
    (_, table), *indexes = db.execute(_SCHEMA).fetchall()
    [number] = db.execute("SELECT 1 + count(*) FROM sqlite_schema WHERE name GLOB 'owed_[0-9]*'").fetchone()
    last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'owed'").fetchone() or (0,)
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    db.execute(f"ALTER TABLE owed RENAME TO owed_{number}")
    db.execute(table)
    # one by one, because a scan would read the page behind its last row
    db.executemany(f"INSERT INTO owed SELECT * FROM owed_{number} WHERE owed_id = ?", kept)
    for _, index in indexes:
        db.execute(index)
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'owed'")
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('owed', ?)", last)
