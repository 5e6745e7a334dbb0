"""Reads of rows one by one, used after a read of many has met a damaged page.

An index has the keys that a read needs, so the keys are read from the index alone, then each row by its key. Rows that
cannot be read are left out until the engine stops. After a statement has met a damaged page, SQLite refuses all further
writes of the same transaction, so all functions run outside a transaction, in the writer's thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.model import Invocation
from engine.model.identity import Identity
from engine.protocols import Page
from engine.storage.sqlite.damage import Damage, is_damage
from engine.storage.sqlite.rows import DELAYED, READY, RUNNABLE, to_invocation

_ROW = f"SELECT {RUNNABLE} FROM invocation LEFT JOIN payload USING (key) WHERE key = ? AND state = {{}}"
_LOST = sqlite3.DatabaseError("an index names a row that its table does not have")


class LeftOut:
    """Rows of a table that cannot be read, and reads of the others. ``key`` is the column of their keys."""

    def __init__(self, damage: Damage, table: str, key: str) -> None:
        self.condition = ""  #: SQL condition that leaves the rows out; empty: there are none
        self._damage, self._name, self._key = damage, f"unreadable_{table}", key

    def keys(self, db: sqlite3.Connection, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        """Return the rows that an index can be read to."""
        rows: list[tuple[Any, ...]] = []
        try:
            rows.extend(db.execute(sql, values))
        except sqlite3.DatabaseError as error:
            self._met(error)
        return rows

    def rows(self, db: sqlite3.Connection, sql: str, keys: Iterable[int]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that a statement returns for each of the keys, and leave out those that cannot be read."""
        for key in keys:
            try:
                row = db.execute(sql, (key,)).fetchone()
                if row is None:
                    raise _LOST
            except sqlite3.DatabaseError as error:
                self._met(error)
                self.add(db, key)
            else:
                yield row

    def change(self, db: sqlite3.Connection, sql: str, keys: Sequence[int]) -> Sequence[int]:
        """Change rows in one transaction. Leave out those that cannot be written, and return the keys of the others."""
        left = list(keys)
        while left:
            current = left[0]
            try:
                db.execute("BEGIN IMMEDIATE")
                for current in left:
                    db.execute(sql, (current,))
                db.execute("COMMIT")
                break
            except sqlite3.DatabaseError as error:
                db.rollback()
                self._met(error)
                left.remove(current)
                self.add(db, current)
        return left

    def add(self, db: sqlite3.Connection, key: int) -> None:
        db.execute(f"CREATE TEMP TABLE IF NOT EXISTS {self._name} (key INTEGER PRIMARY KEY)")
        db.execute(f"INSERT OR IGNORE INTO {self._name} VALUES (?)", (key,))
        self.condition = f" AND {self._key} NOT IN {self._name}"

    def _met(self, error: sqlite3.DatabaseError) -> None:
        if error is not _LOST and not is_damage(error):
            raise error
        self._damage.met(error)


class IsolatedReads:
    """Reads of the window."""

    def __init__(self, damage: Damage, identity: Identity) -> None:
        self._left_out, self._identity = LeftOut(damage, "invocation", "key"), identity

    @property
    def readable(self) -> str:
        """SQL condition on the key of an invocation that leaves out rows; empty if there are none."""
        return self._left_out.condition

    def ready(self, db: sqlite3.Connection, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        sql = (
            "SELECT key FROM invocation INDEXED BY ready"
            f" WHERE state = 0 AND function_id = ? AND rank >= ? AND (rank > ? OR key > ?){self.readable}"
            " ORDER BY rank, key LIMIT ?"
        )
        keys = self._left_out.keys(db, sql, (function_id, after[0], after[0], after[1], rows))
        found, whole = self._up_to(db, READY, keys, size)
        return Page(invocations=tuple(found), complete=whole and len(keys) < rows)

    def promote(
        self, db: sqlite3.Connection, now: float, rows: int, size: int
    ) -> tuple[tuple[Invocation, ...], float | None]:
        sql = (
            "SELECT key FROM invocation INDEXED BY delayed"
            f" WHERE state = 1 AND due <= ?{self.readable} ORDER BY due LIMIT ?"
        )
        due, _ = self._up_to(db, DELAYED, self._left_out.keys(db, sql, (now, rows)), size)
        sql = "UPDATE invocation SET state = 0 WHERE key = ?"
        changed = {*self._left_out.change(db, sql, [one.key for one in due])}
        sql = f"SELECT due FROM invocation INDEXED BY delayed WHERE state = 1{self.readable} ORDER BY due LIMIT 1"
        later = self._left_out.keys(db, sql, ())
        return tuple(one for one in due if one.key in changed), float(later[0][0]) if later else None

    def _up_to(
        self, db: sqlite3.Connection, state: int, keys: list[tuple[Any, ...]], size: int
    ) -> tuple[list[Invocation], bool]:
        """Read rows until their payloads have ``size`` bytes in total. Return them, and whether they are all rows."""
        found: list[Invocation] = []
        read = 0
        for row in self._left_out.rows(db, _ROW.format(state), (key for [key] in keys)):
            found.append(to_invocation(row, self._identity))
            read += len(found[-1].payload)
            if read >= size:
                return found, False
        return found, True
