"""Outcomes on disk that destinations have not confirmed yet, and those that were given up."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterator, Sequence

from engine.journal.connection import Readers
from engine.journal.invocations import append_rows, insert
from engine.journal.writer import Writer
from engine.model import DestinationSpec, Invocation, Owed

_COLUMNS = "owed_id, key, function_id, condition, destination, param, due, tries, error, since"


class SQLiteOutbox:
    def __init__(self, readers: Readers, writer: Writer) -> None:
        self._readers, self._writer = readers, writer

    async def owed(self, now: float, rows: int, each: int) -> tuple[Sequence[Owed], float | None]:
        return await self._writer.call(lambda db: _owed(db, now, rows, each))

    async def delivered(self, owed: Owed, append: Invocation | None = None) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM owed WHERE owed_id = ?", (owed.owed_id,))
            if append is not None:
                insert(db, append_rows(append))

        await self._writer.call(write)

    async def postpone(self, owed: Owed, due_at: float | None, error: str) -> None:
        await self._writer.call(
            lambda db: (
                db.execute(
                    "UPDATE owed SET due = ?, tries = tries + 1, error = ? WHERE owed_id = ?",
                    (due_at, error, owed.owed_id),
                ).rowcount
            )
        )

    async def given_up(self, functions: Collection[int], offset: int, limit: int) -> tuple[Sequence[Owed], int]:
        if not functions:
            return [], 0
        where = f"FROM owed INDEXED BY owed_given_up WHERE due IS NULL AND function_id IN ({_marks(functions)})"
        page = f"SELECT {_COLUMNS} {where} ORDER BY owed_id LIMIT ? OFFSET ?"
        async with self._readers.one() as db:
            found = await db.execute_fetchall(page, (*functions, limit, offset))
            [(count,)] = await db.execute_fetchall(f"SELECT count(*) {where}", tuple(functions))
        return [_to_owed(*row) for row in found], count

    async def retrying(self, functions: Collection[int], now: float, limit: int) -> Sequence[Owed]:
        if not functions:
            return []
        where = f"FROM owed INDEXED BY owed_due WHERE due > ? AND tries > 0 AND function_id IN ({_marks(functions)})"
        async with self._readers.one() as db:
            found = await db.execute_fetchall(
                f"SELECT {_COLUMNS} {where} ORDER BY due LIMIT ?", (now, *functions, limit)
            )
        return [_to_owed(*row) for row in found]

    async def owed_for(self, key: int) -> Sequence[Owed]:
        sql = f"SELECT {_COLUMNS} FROM owed INDEXED BY owed_key WHERE key = ? ORDER BY owed_id"
        return await self._writer.call(lambda db: [_to_owed(*row) for row in db.execute(sql, (key,))])

    async def revive(self, functions: Collection[int], owed_ids: Collection[int], now: float) -> Sequence[int]:
        return await self._writer.call(lambda db: _revive(db, functions, owed_ids, now))


def _owed(db: sqlite3.Connection, now: float, rows: int, each: int) -> tuple[Sequence[Owed], float | None]:
    destinations = list(_destinations(db))
    each = min(each, max(1, rows // max(1, len(destinations))))
    found: list[Owed] = []
    for destination in destinations:
        page = db.execute(
            f"SELECT {_COLUMNS} FROM owed INDEXED BY owed_destination"
            " WHERE destination = ? AND param = ? AND due <= ? ORDER BY due LIMIT ?",
            (*destination, now, each),
        )
        found += [_to_owed(*row) for row in page]
    later = db.execute("SELECT min(due) FROM owed WHERE due > ?", (now,)).fetchone()[0]
    return sorted(found, key=lambda owed: owed.due_at), later


def _destinations(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """A walk from one to the next along the index: no scan of what they are owed."""
    last: tuple[str, str] | None = ("", "")
    while last is not None:
        last = db.execute(
            "SELECT destination, param FROM owed INDEXED BY owed_destination"
            " WHERE due IS NOT NULL AND (destination, param) > (?, ?) ORDER BY destination, param LIMIT 1",
            last,
        ).fetchone()
        if last is not None:
            yield last


def _revive(db: sqlite3.Connection, functions: Collection[int], owed_ids: Collection[int], now: float) -> Sequence[int]:
    rows = db.execute(
        "UPDATE owed SET due = ?, since = ?, tries = 0 WHERE due IS NULL"
        f" AND function_id IN ({_marks(functions)}) AND owed_id IN ({_marks(owed_ids)}) RETURNING owed_id",
        (now, now, *functions, *owed_ids),
    )
    return sorted(owed_id for (owed_id,) in rows.fetchall())


def _marks(values: Collection[int]) -> str:
    return ",".join("?" * len(values))


def _to_owed(
    owed_id: int,
    key: int,
    function_id: int,
    condition: str,
    destination: str,
    param: str,
    due: float | None,
    tries: int,
    error: str,
    since: float,
) -> Owed:
    return Owed(
        owed_id=owed_id,
        key=key,
        function_id=function_id,
        condition=condition,
        destination=DestinationSpec(destination=destination, param=param),
        due_at=math.inf if due is None else due,
        tries=tries,
        error=error,
        since=since,
    )
