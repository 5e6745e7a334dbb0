"""Checksums of rows, besides those that ``batch`` computes. Triggers of the writing connection compute them.

Other programs can therefore write to the tables, too. ``verify`` then finds the rows that they changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from engine.storage.sqlite.batch import FIXED, MOVED, RARE
from engine.storage.sqlite.checksums import row_sum

#: Columns of the primary key, and the others.
_TABLES = {
    "attempt": ("key, attempt", "started, ended, code, message, log, decision, progress, note, instance"),
    "owed": ("owed_id", "key, function_id, condition, destination, param, due, tries, error, since"),
    "idempotency": ("function_id, token", "key, digest, expires"),
    "function": ("function_id", "project, package, name"),
    "function_version": ("function_id, version", "body"),
    "async_settings": ("function_id, version", "body"),
    "resource": ("kind, owner, id", "body"),
    "cursor": ("trigger_id, name", "position"),
    "plugin_row": ("plugin, name, key", "value"),
}
#: Condition for a changed invocation: its sum has a third part if it has ended, after an attempt or before any.
_ENDS = (
    f"sum - row_sum({MOVED}) - row_sum({FIXED}) - iif(coalesce({RARE}) IS NULL, 0, row_sum({RARE})) NOT IN"
    " (iif(state < 3, 0, row_sum(state, failures, started, ended, code, message)),"
    " iif(state < 3, 0, row_sum(state, NULL, NULL, ended, code, message)))"
)


def add_sums(db: sqlite3.Connection) -> None:
    """Let a connection store the checksum of each row that it writes."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    for table, (key, others) in _TABLES.items():
        new, columns = (", ".join(f"new.{one}" for one in text.split(", ")) for text in (key, f"{key}, {others}"))
        for event in ("INSERT", f"UPDATE OF {key}, {others}"):
            db.execute(
                f"CREATE TEMP TRIGGER {table}_{event[:6]} AFTER {event} ON main.{table} BEGIN"
                f" UPDATE {table} SET sum = row_sum({columns}) WHERE ({key}) = ({new}); END"
            )


def changed_rows(db: sqlite3.Connection) -> Iterator[tuple[str, str, list[object]]]:
    """Yield the table of each row that differs from its checksum, the names of its key, and the key."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    conditions = {table: (key, f"sum <> row_sum({key}, {others})") for table, (key, others) in _TABLES.items()}
    for table, (key, condition) in {**conditions, "invocation": ("key", _ENDS)}.items():
        if db.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = 'sum'", (table,)).fetchall():
            for row in db.execute(f"SELECT {key} FROM {table} WHERE {condition}"):
                yield table, key, list(row)
