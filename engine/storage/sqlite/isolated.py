"""Reads of invocations one by one, used after a read of many has met a damaged page.

An index has the keys that a read needs, so the keys are read from the index alone, then each row by its key. Rows that
cannot be read are noted and left out. All functions run outside a transaction, see ``damage``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from engine.model import Invocation
from engine.model.identity import Identity
from engine.protocols import Page
from engine.storage.sqlite.damage import DamageNotes, is_damage, read_keys
from engine.storage.sqlite.payloads import with_payload
from engine.storage.sqlite.rows import (
    DELAYED,
    POISONED,
    READY,
    REVIVE,
    RUNNABLE,
    RUNNING,
    to_crashed,
    to_invocation,
)
from engine.storage.sqlite.salvage import store_each

#: Statement that returns a row without its payload, which may be in any of several tables.
_ROW = (
    f"SELECT {RUNNABLE}, begun, {POISONED} FROM invocation, (SELECT NULL AS body, NULL AS sum)"
    " WHERE key = ? AND state = ?"
)
_LOST = sqlite3.DatabaseError("the index names a row that the table does not have in this state")


class IsolatedReads:
    def __init__(self, notes: DamageNotes, identity: Identity) -> None:
        self._notes, self._identity = notes, identity

    def ready(self, db: sqlite3.Connection, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        sql = (
            "SELECT key FROM invocation INDEXED BY ready"
            f" WHERE state = 0 AND function_id = ? AND rank >= ? AND (rank > ? OR key > ?){self._notes.readable}"
            " ORDER BY rank, key LIMIT ?"
        )
        keys = self._keys(db, "ready", sql, (function_id, after[0], after[0], after[1], rows))
        found, whole = _up_to(self._rows(db, "ready", keys, READY), size)
        return Page(invocations=tuple(found), complete=whole and len(keys) < rows)

    def promote(
        self, db: sqlite3.Connection, now: float, rows: int, size: int
    ) -> tuple[tuple[Invocation, ...], float | None]:
        sql = (
            "SELECT key FROM invocation INDEXED BY delayed"
            f" WHERE state = 1 AND due <= ?{self._notes.readable} ORDER BY due LIMIT ?"
        )
        keys = self._keys(db, "delayed", sql, (now, rows))
        due, _ = _up_to(self._rows(db, "delayed", keys, DELAYED), size)
        failed = self._set_state(db, "UPDATE invocation SET state = 0 WHERE key = ?", [one.key for one in due])
        return tuple(one for one in due if one.key not in failed), self.next_due(db)

    def next_due(self, db: sqlite3.Connection) -> float | None:
        sql = (
            f"SELECT due FROM invocation INDEXED BY delayed WHERE state = 1{self._notes.readable} ORDER BY due LIMIT 1"
        )
        found, error = read_keys(db, sql, ())
        if error is not None:
            self._notes.note_index(db, "delayed", error)
        return float(found[0][0]) if found else None

    def revive(self, db: sqlite3.Connection) -> tuple[list[Invocation], int]:
        """Put running invocations back to WAIT. Return those that ran at too many crashes, and the number put back."""
        sql = f"SELECT key FROM invocation INDEXED BY running WHERE state = 2{self._notes.readable}"
        keys = self._keys(db, "running", sql, ())
        running = list(self._raw(db, "running", keys, RUNNING))
        revived = [row[0] for row in running if not row[-1]]
        failed = self._set_state(db, f"{REVIVE} WHERE key = ?", revived)
        return [to_crashed(row[:-1], self._identity) for row in running if row[-1]], len(revived) - len(failed)

    # --- inside ---------------------------------------------------------------------------------------------

    def _keys(self, db: sqlite3.Connection, index: str, sql: str, values: tuple[object, ...]) -> list[int]:
        keys, error = read_keys(db, sql, values)
        if error is not None:
            self._notes.note_index(db, index, error)
        return [key for [key] in keys]

    def _rows(self, db: sqlite3.Connection, index: str, keys: Iterable[int], state: int) -> Iterator[Invocation]:
        for row in self._raw(db, index, keys, state):
            yield to_invocation(row, self._identity)

    def _raw(self, db: sqlite3.Connection, index: str, keys: Iterable[int], state: int) -> Iterator[tuple[Any, ...]]:
        """Yield columns ``RUNNABLE``, ``begun``, and whether the row failed at too many crashes, of readable rows."""
        for key in keys:
            if self._notes.covers(key, ("invocation", "payload")):
                continue  # noted for another row of the same page
            try:
                row = db.execute(_ROW, (key, state)).fetchone()
                if row is not None:
                    row = with_payload(db, row)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._notes.note_row(db, key, error)
                continue
            if row is None:
                self._notes.note_index(db, index, _LOST, key=key)
            else:
                yield row

    def _set_state(self, db: sqlite3.Connection, sql: str, keys: Sequence[int]) -> frozenset[int]:
        """Change rows and return the keys of those that cannot be changed, because an index is damaged."""
        failed = store_each(db, keys, lambda db, key: db.execute(sql, (key,)))
        for key, error in failed:
            self._notes.note_index(db, "ready", error, key=key)
        return frozenset(key for key, _ in failed)


def _up_to(rows: Iterator[Invocation], size: int) -> tuple[list[Invocation], bool]:
    """Take rows until their payloads have ``size`` bytes in total. Return them, and whether they are all rows."""
    found: list[Invocation] = []
    read = 0
    for invocation in rows:
        found.append(invocation)
        read += len(invocation.payload)
        if read >= size:
            return found, False
    return found, True
