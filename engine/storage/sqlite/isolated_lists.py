"""Lists read after a damaged page was met: the rows on it are left out.

The ids of the rows come from indexes into a temporary table, in the order of the list. Ranges of them are read and
halved until the rows are found that cannot be read. All functions block the calling thread, on a connection that only
reads the database.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import Struct

from engine.model import Record
from engine.model.identity import Identity
from engine.protocols import Selection
from engine.storage.sqlite.damage import is_damage
from engine.storage.sqlite.rows import LISTED, to_record
from engine.storage.sqlite.selections import candidates, filters, parts

#: Decodes texts of rows, also those that are not UTF-8.
LENIENT = partial(str, encoding="utf-8", errors="replace")


class Listed(Struct, kw_only=True):
    """Rows of a page, and the number of all rows, both without rows that cannot be read."""

    records: list[Record] = []
    total: int = 0
    lost: dict[int, sqlite3.DatabaseError]  #: keys of rows that cannot be read, each with the error


class Candidates:
    """Ids of the rows of a list, in a temporary table. A list can have several parts, which are numbered from 0.

    SQLite refuses writes of a transaction that has met a damaged page, so all parts are added before any row is read.
    """

    def __init__(self, db: sqlite3.Connection, table: str, key: str, last: str) -> None:
        """``key`` is the column with the ids, and ``last`` one at the end of a row."""
        self._db, self._table, self._key, self._last = db, table, key, last
        self._unreadable = "0"
        db.text_factory = LENIENT
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("CREATE TEMP TABLE candidate (position INTEGER PRIMARY KEY, part INTEGER, id INTEGER)")
        db.execute("BEGIN")

    def add(self, part: int, sql: str, values: Sequence[object]) -> None:
        """Add the ids that a query returns. Raises the error of SQLite if the query meets a damaged page."""
        self._db.execute(f"INSERT INTO candidate (part, id) SELECT {part:d}, {self._key} FROM ({sql})", values)

    def leave_out_unreadable(self) -> dict[int, sqlite3.DatabaseError]:
        """Find the rows that cannot be read, and leave them out. Return their ids with the errors."""
        probe = (
            f"SELECT max({self._last}) FROM candidate CROSS JOIN {self._table} ON {self._key} = id"
            " WHERE position BETWEEN ? AND ?"
        )
        [count] = self._db.execute("SELECT count(*) FROM candidate").fetchone()
        ranges, lost = [(1, count)], dict[int, sqlite3.DatabaseError]()
        while ranges:
            first, last = ranges.pop()
            try:
                self._db.execute(probe, (first, last)).fetchone()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                if first == last:
                    lost[first] = error
                else:
                    middle = (first + last) // 2
                    ranges += [(first, middle), (middle + 1, last)]
        self._unreadable = ",".join(map(str, lost))
        ids = self._db.execute(f"SELECT position, id FROM candidate WHERE position IN ({self._unreadable})")
        return {id: lost[position] for position, id in ids}

    def page(
        self, part: int, columns: str, conditions: str, values: Sequence[object], limit: int, offset: int
    ) -> tuple[list[Any], int]:
        """Return the rows of a part that match, from ``offset`` on, and the number of all that match."""
        rows = (
            f"candidate CROSS JOIN {self._table} ON {self._key} = id"
            f" WHERE part = {part:d} AND position NOT IN ({self._unreadable}) {conditions}"
        )
        [count] = self._db.execute(f"SELECT count(*) FROM {rows}", values).fetchone()
        if limit <= 0 or count <= offset:
            return [], count
        sql = f"SELECT {columns} FROM {rows} ORDER BY position LIMIT ? OFFSET ?"
        return self._db.execute(sql, (*values, limit, offset)).fetchall(), count


def list_isolated(db: sqlite3.Connection, selection: Selection, identity: Identity, readable: str) -> Listed:
    """Return a page of the records that match. Raises the error of SQLite if an index is damaged.

    ``readable`` is an SQL condition on the key that leaves out noted rows, or empty.
    """
    found = Candidates(db, "invocation", "key", "message")
    selected = [
        (selection.states & states if selection.states else states, states, part, order)
        for states, part, order in parts(selection)
    ]
    for number, (wanted, _, part, order) in enumerate(selected):
        if wanted:
            found.add(number, *candidates(selection, part, order, readable))
    listed, skip = Listed(lost=found.leave_out_unreadable()), selection.offset
    for number, (wanted, states, _, _) in enumerate(selected):
        conditions, values = filters(selection, wanted if wanted != states else frozenset())
        if not selection.functions:
            conditions, values = f" AND function_id = ?{conditions}", [selection.function_id, *values]
        room = selection.limit - len(listed.records)
        rows, count = found.page(number, LISTED, conditions, values, room, skip)
        listed.records += [to_record(row, identity) for row in rows]
        skip = max(0, skip - count)
        listed.total += count
    return listed
