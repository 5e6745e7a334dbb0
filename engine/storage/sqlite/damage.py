"""Notes on damaged pages: ranges of rows that cannot be read, and indexes that are to be rebuilt.

The table ``damage`` has the notes. Rows in its ranges stay on disk unchanged, and are left out of windows, pruning and
discarding.

After a statement has met a damaged page, SQLite refuses all further writes of the same transaction. All functions here
that read rows must therefore be called outside a transaction, in the writer's thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection, Iterator

import structlog
from msgspec.structs import replace

from engine.errors.data_errors import RESTORE
from engine.protocols import Damage
from engine.storage.sqlite.older_tables import older_tables
from engine.storage.sqlite.payloads import find_payload, payload_tables

log = structlog.get_logger("functiond.journal")

#: Tables whose rows belong to invocations, with the statement that reads a whole row or all rows of one key.
TABLES: dict[str, str] = {
    table: f"SELECT * FROM {table} WHERE key = ?" for table in ("invocation", "payload", "result", "attempt")
}
#: Indexes over invocations. A row that one of them cannot take is left out of windows, too.
INDEXES = ("ready", "delayed", "running", "finished", "ordering", "held", "caused")
#: Tables whose notes are numbered instead of naming rows. Reads at the next start find the damaged rows again.
NUMBERED = ("plugin_row", "idempotency")
#: Rows looked at in each direction from a damaged row, to find the other rows of its page.
NEIGHBOURS = 512
#: Names whose ranges are left out of windows. Results and attempts are not needed to run an invocation.
_WAITING = ("invocation", "payload", *INDEXES)
#: Codes of SQLite for pages that the disk cannot read.
_READ_ERRORS = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS})
ADVICE = f"run `functiond verify`, then {RESTORE}"


def is_damage(error: BaseException) -> bool:
    """Return whether a statement failed at a page or row that cannot be read, and not at a write."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF == sqlite3.SQLITE_CORRUPT or code in _READ_ERRORS:
        return True
    return str(error).startswith("Could not decode")


class DamageNotes:
    """Notes of one database. Written in the writer's thread only; ``ranges`` may be read from any thread."""

    def __init__(self) -> None:
        self.ranges: tuple[Damage, ...] = ()

    def load(self, db: sqlite3.Connection) -> None:
        rows = db.execute("SELECT name, from_key, to_key, noted_at, problem FROM damage").fetchall()
        self.ranges = tuple(
            Damage(name=name, from_key=first, to_key=last, noted_at=at, problem=problem)
            for name, first, last, at, problem in rows
        )

    def recheck(self, db: sqlite3.Connection) -> None:
        """Remove notes on rows that can be read again, as after a copy of the directory to another disk."""
        older = {one.name for table in ("result", "attempt") for one in older_tables(db, table)}
        for one in self.ranges:
            if one.name in NUMBERED:
                self.clear(db, one.name)
            elif (
                one.name in {*TABLES, *older}
                and one.to_key
                and all(is_readable(db, one.name, key) for key in (one.from_key, *_keys_in(db, one), one.to_key))
            ):
                db.execute("DELETE FROM damage WHERE name = ? AND from_key = ?", (one.name, one.from_key))
                self.ranges = tuple(other for other in self.ranges if other is not one)
                log.info("rows can be read again", table=one.name, first=one.from_key, last=one.to_key)

    def covers(self, key: int, names: Collection[str] = (*TABLES, *INDEXES)) -> bool:
        return any(one.from_key <= key <= one.to_key and one.name in names for one in self.ranges)

    @property
    def readable(self) -> str:
        """SQL condition on ``invocation.key`` that leaves out noted rows; empty without notes.

        The condition reads no page of the row, if the query uses an index.
        """
        return left_out("invocation.key", _WAITING) if self.ranges else ""

    def note_row(self, db: sqlite3.Connection, key: int, error: BaseException) -> None:
        """Note all rows on the damaged pages of an invocation. ``error`` is the one met when the row was read."""
        for table in TABLES:
            if not is_readable(db, table, key):
                self.note(db, table, *_range_around(db, table, key), error)

    def note_index(self, db: sqlite3.Connection, name: str, error: BaseException, key: int = 0) -> None:
        """Note an index that the next start rebuilds. Until then, the row with ``key`` is left out of windows."""
        self.note(db, name, 0, 0, error)
        if key:
            self.note(db, name, key, key, error)

    def note(self, db: sqlite3.Connection, name: str, first: int, last: int, error: BaseException) -> None:
        """Store a range, together with ranges of the same name that overlap with it, and log it if it is new."""
        if any(one.name == name and one.from_key <= first and last <= one.to_key for one in self.ranges):
            return
        same = [one for one in self.ranges if one.name == name and one.from_key <= last and first <= one.to_key]
        whole = Damage(
            name=name,
            from_key=min(first, *(one.from_key for one in same)) if same else first,
            to_key=max(last, *(one.to_key for one in same)) if same else last,
            noted_at=time.time(),
            problem=str(error),
        )
        db.execute("BEGIN IMMEDIATE")
        for one in same:
            db.execute("DELETE FROM damage WHERE name = ? AND from_key = ?", (name, one.from_key))
        row = (whole.name, whole.from_key, whole.to_key, whole.noted_at, whole.problem)
        db.execute("INSERT INTO damage (name, from_key, to_key, noted_at, problem) VALUES (?,?,?,?,?)", row)
        db.execute("COMMIT")
        self.ranges = (*(one for one in self.ranges if one not in same), whole)
        if first:
            log.error("rows are damaged", table=name, first=first, last=last, problem=whole.problem, advice=ADVICE)
        else:
            advice = "restart the engine, which rebuilds the index"
            log.error("index is damaged", index=name, problem=whole.problem, advice=advice)

    def note_next(self, db: sqlite3.Connection, name: str, where: str, error: BaseException) -> None:
        """Note rows of a ``NUMBERED`` table. ``where`` describes them."""
        number = 1 + sum(one.name == name for one in self.ranges)
        self.note(db, name, number, number, sqlite3.DatabaseError(f"{where}: {error}"))

    def move(self, db: sqlite3.Connection, table: str, name: str) -> None:
        """Move all notes on a table to the name under which it was set aside."""
        db.execute("UPDATE damage SET name = ? WHERE name = ?", (name, table))
        self.ranges = tuple(replace(one, name=name) if one.name == table else one for one in self.ranges)

    def clear(self, db: sqlite3.Connection, name: str) -> None:
        """Remove all notes on an index that was rebuilt, or on a ``NUMBERED`` table."""
        db.execute("DELETE FROM damage WHERE name = ?", (name,))
        self.ranges = tuple(one for one in self.ranges if one.name != name)


def left_out(key: str, names: Collection[str]) -> str:
    """Return an SQL condition that is false for keys in the noted ranges of these tables or indexes."""
    listed = ",".join(f"'{name}'" for name in names)
    return (
        f" AND NOT EXISTS (SELECT 1 FROM damage d WHERE d.name IN ({listed})"
        f" AND d.from_key <= {key} AND d.to_key >= {key})"
    )


def is_readable(db: sqlite3.Connection, table: str, key: int) -> bool:
    try:
        if table == "payload":
            find_payload(db, key)
        else:
            db.execute(f"SELECT * FROM {table} WHERE key = ?", (key,)).fetchall()
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return False
    return True


def read_keys(
    db: sqlite3.Connection, sql: str, values: tuple[object, ...]
) -> tuple[list[tuple[int, ...]], sqlite3.DatabaseError | None]:
    """Return the rows that an index can be read to, and the error at which the read ended before the last one."""
    rows: list[tuple[int, ...]] = []
    try:
        rows.extend(db.execute(sql, values))
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return rows, error
    return rows, None


def _keys_in(db: sqlite3.Connection, one: Damage) -> Iterator[int]:
    for other in _others(db, one.name):
        sql = f"SELECT key FROM {other} WHERE key BETWEEN ? AND ? LIMIT {NEIGHBOURS}"
        rows, _ = read_keys(db, sql, (one.from_key, one.to_key))
        for [key] in rows:
            yield key


def _range_around(db: sqlite3.Connection, table: str, key: int) -> tuple[int, int]:
    """Return the first and last key of the damaged rows around a damaged row of a table."""
    return _edge(db, table, key, "<", "DESC"), _edge(db, table, key, ">", "ASC")


def _edge(db: sqlite3.Connection, table: str, key: int, side: str, order: str) -> int:
    edge = key
    for neighbour in _neighbours(db, table, key, side, order):
        if is_readable(db, table, neighbour):
            break
        edge = neighbour
    return edge


def _neighbours(db: sqlite3.Connection, table: str, key: int, side: str, order: str) -> Iterator[int]:
    """Yield keys of the rows before or after a row, nearest first, read from a table other than the damaged one."""
    found: set[int] = set()
    for other in _others(db, table):
        sql = f"SELECT key FROM {other} WHERE key {side} ? ORDER BY key {order} LIMIT {NEIGHBOURS}"
        rows, _ = read_keys(db, sql, (key,))
        found.update(neighbour for [neighbour] in rows)
    yield from sorted(found, reverse=order == "DESC")[:NEIGHBOURS]


def _others(db: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Return tables that have the same keys as the damaged one."""
    return tuple(payload_tables(db)) if table == "invocation" else ("invocation",)
