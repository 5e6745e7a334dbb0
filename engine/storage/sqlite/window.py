"""Window: pages of waiting invocations, read on the writing connection.

A read inside a batch includes exactly the writes submitted before it, and cannot return a row that one of these writes
ends. A read of 256 rows takes 0.3 ms and happens at most twenty times a second.

A read that meets a damaged page is repeated outside the batch: keys from the index alone, then row by row (``damage``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from engine.model import Invocation
from engine.model.identity import Identity
from engine.protocols import Page
from engine.storage.sqlite.damage import Damage, LeftOut
from engine.storage.sqlite.rows import DELAYED, READY, RUNNABLE, to_invocation
from engine.storage.sqlite.writer import Writer

#: Sources of pages, in their order: with a join of payloads or none, and the condition that leaves rows out.
_READY = (
    "invocation INDEXED BY ready {} WHERE state = 0 AND function_id = ? AND rank >= ? AND (rank > ? OR key > ?){}"
    " ORDER BY rank, key LIMIT ?"
)
_DELAYED = "invocation INDEXED BY delayed {} WHERE state = 1 AND due <= ?{} ORDER BY due LIMIT ?"
_NEXT_DUE = "SELECT due FROM invocation INDEXED BY delayed WHERE state = 1{} ORDER BY due LIMIT 1"
_PAYLOADS = "LEFT JOIN payload USING (key)"
_PROMOTE = "UPDATE invocation SET state = 0 WHERE key = ?"
#: Row of a key, in the state of its page.
_ROW = f"SELECT {RUNNABLE} FROM invocation {_PAYLOADS} WHERE key = ? AND state = {{}}"


class SQLiteWindow:
    def __init__(self, writer: Writer, identity: Identity, damage: Damage) -> None:
        self._writer, self._identity = writer, identity
        self._left_out = LeftOut(damage, "invocation", "key")

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        values = (function_id, after[0], after[0], after[1], rows)

        def read(db: sqlite3.Connection, isolated: bool) -> Page:
            invocations, complete = self._page(db, _READY, READY, values, size, isolated=isolated)
            return Page(invocations=invocations, complete=complete)

        return await self._writer.call(lambda db: read(db, False), lambda db: read(db, True))

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        def promote(db: sqlite3.Connection) -> tuple[tuple[Invocation, ...], float | None]:
            due, _ = self._page(db, _DELAYED, DELAYED, (now, rows), size)
            db.executemany(_PROMOTE, [(invocation.key,) for invocation in due])
            return due, next_due(db, self._left_out.condition)

        def promote_isolated(db: sqlite3.Connection) -> tuple[tuple[Invocation, ...], float | None]:
            due, _ = self._page(db, _DELAYED, DELAYED, (now, rows), size, isolated=True)
            changed = {*self._left_out.change(db, _PROMOTE, [invocation.key for invocation in due])}
            later = self._left_out.keys(db, _NEXT_DUE.format(self._left_out.condition), ())
            return tuple(row for row in due if row.key in changed), float(later[0][0]) if later else None

        return await self._writer.call(promote, promote_isolated)

    def _page(
        self,
        db: sqlite3.Connection,
        source: str,
        state: int,
        values: tuple[Any, ...],
        size: int,
        *,
        isolated: bool = False,
    ) -> tuple[tuple[Invocation, ...], bool]:
        """Read rows until their payloads have ``size`` bytes in total. Return them, and whether no others follow.

        The last of ``values`` is the largest number of rows.
        """
        found, read, left_out = list[Invocation](), 0, self._left_out
        keys: list[Any] | None = None
        if isolated:
            keys = left_out.keys(db, f"SELECT key FROM {source.format('', left_out.condition)}", values)
            rows: Iterable[tuple[Any, ...]] = left_out.rows(db, _ROW.format(state), (key for [key] in keys))
        else:
            rows = db.execute(f"SELECT {RUNNABLE} FROM {source.format(_PAYLOADS, left_out.condition)}", values)
        for row in rows:
            found.append(to_invocation(row, self._identity))
            read += len(found[-1].payload)
            if read >= size:
                return tuple(found), False
        return tuple(found), len(found if keys is None else keys) < values[-1]


def next_due(db: sqlite3.Connection, readable: str = "") -> float | None:
    """Return the due time of the earliest delayed row. ``readable`` is a condition that leaves out rows."""
    row = db.execute(_NEXT_DUE.format(readable)).fetchone()
    return None if row is None else float(row[0])
