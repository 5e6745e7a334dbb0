"""Checksums of rows, by which bytes that changed on disk are found: of payloads and results by each read.

A checksum is a CRC-32 that begins with the key of its row, so that a body that was moved to another key is found too.
NULL in place of a checksum means that the row was written before there were checksums. Such a row is not checked.

Payloads, results and invocations get theirs from ``batch``. Triggers of the writing connection compute the others, so
that other programs can write to these tables, too. ``verify`` then finds the rows that they changed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any
from zlib import crc32

from msgspec.msgpack import encode

_WORD = 0xFFFFFFFF
#: Columns of an invocation that a retry changes, and two kinds that never change. Its sum has a part of each kind.
MOVED = "rank, due, attempt"
FIXED = "key, function_id, version, alias, source, priority, first_due, hops, memory, size"
RARE = "ordering_key, trace, trigger_id, cause"
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
#: The same of tables whose writers compute the sums, of what never changes in them.
_FIXED = {
    "call": ("key", "parent, token, depth, grp, place, only"),
    "call_group": ("key", "project, token, kind, need_all, created"),
}
#: Condition for a changed invocation: its sum has a third part if it has ended, after an attempt or before any.
_ENDS = (
    f"sum - row_sum({MOVED}) - row_sum({FIXED}) - iif(coalesce({RARE}) IS NULL, 0, row_sum({RARE})) NOT IN"
    " (iif(state < 3, 0, row_sum(state, failures, started, ended, code, message)),"
    " iif(state < 3, 0, row_sum(state, NULL, NULL, ended, code, message)))"
)


def row_sum(*values: Any) -> int:
    return crc32(encode(values))


def payload_sum(key: int, body: bytes) -> int:
    return crc32(body, key & _WORD)


def result_sum(key: int, body: bytes, log: bytes) -> int:
    return crc32(log, (crc32(body, key & _WORD) + len(body)) & _WORD)  # the length finds a moved end of the body


def payload_problem(key: int, size: int, body: Any, stored: int | None) -> str:
    """Return what is wrong with the payload of a row, or an empty text. ``size`` is its number of bytes."""
    if body is None:
        return "the payload is missing on disk"
    if not isinstance(body, bytes) or len(body) != size:
        return "the payload is damaged on disk: it has another size than it was stored with"
    if stored is not None and stored != payload_sum(key, body):
        return "the payload is damaged on disk: its checksum does not match"
    return ""


def result_is_damaged(key: int, body: Any, log: Any, stored: int | None) -> bool:
    """Return whether a stored result or its log changed on disk."""
    if not (isinstance(body, bytes) and isinstance(log, bytes)):
        return True
    return stored is not None and stored != result_sum(key, body, log)


def add_sums(db: sqlite3.Connection) -> None:
    """Let a connection store the checksum of each row that it writes."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    for table, (key, others) in _TABLES.items():
        new, columns = (", ".join(f"new.{column}" for column in text.split(", ")) for text in (key, f"{key}, {others}"))
        for event in ("INSERT", f"UPDATE OF {key}, {others}"):
            db.execute(
                f"CREATE TEMP TRIGGER {table}_{event[:6]} AFTER {event} ON main.{table} BEGIN"
                f" UPDATE {table} SET sum = row_sum({columns}) WHERE ({key}) = ({new}); END"
            )


def changed_rows(db: sqlite3.Connection) -> Iterator[tuple[str, str, list[object]]]:
    """Yield the table of each row that differs from its checksum, the names of its key, and the key."""
    db.create_function("row_sum", -1, row_sum, deterministic=True)
    conditions = {
        table: (key, f"sum <> row_sum({key}, {others})") for table, (key, others) in (_TABLES | _FIXED).items()
    }
    for table, (key, condition) in {**conditions, "invocation": ("key", _ENDS)}.items():
        if db.execute("SELECT 1 FROM pragma_table_info(?) WHERE name = 'sum'", (table,)).fetchall():
            for row in db.execute(f"SELECT {key} FROM {table} WHERE {condition}"):
                yield table, key, list(row)
