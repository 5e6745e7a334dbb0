"""Outbox on disk: pending deliveries, and deliveries that were given up."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from engine.errors import PageDamaged
from engine.model import DestinationSpec, Invocation, PendingDelivery
from engine.protocols import Count, DeliveryCount, DeliveryFilter, PresentDestination
from engine.storage.sqlite.batch import WritingConnection
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import LeftOut
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.rows import marks
from engine.storage.sqlite.writer import Writer

_COLUMNS = "owed_id, key, function_id, condition, destination, param, due, tries, error, since"
#: Statement that returns the number of rows that a page scans, and the id of the last of these rows.
SCANNED_UNTIL = (
    "SELECT count(*), max(owed_id) FROM (SELECT owed_id FROM owed WHERE owed_id > ? ORDER BY owed_id LIMIT ?)"
)
#: Largest number of rows that one page of a list, or of counts, scans. Includes rows that do not match.
ROWS_SCANNED = 20_000
Present = PresentDestination | None


class SQLiteOutbox:
    def __init__(self, readers: Readers, writer: Writer, journal: SQLiteJournal) -> None:
        self._readers, self._writer, self._journal, self._damage = readers, writer, journal, journal.damage
        self._left_out = LeftOut(journal.damage, "owed", "owed_id")

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        return await self._writer.call(
            lambda db: _pending(db, self._left_out.condition, now, rows, each),
            lambda db: _pending_isolated(db, self._left_out, now, rows),
        )

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        def write(db: WritingConnection) -> None:
            db.execute("DELETE FROM owed WHERE owed_id = ?", (pending.delivery_id,))
            if append is not None:
                self._journal.store(db, [append])

        if append is not None:
            self._damage.check()
        await self._end(pending, write, self._damage.note_append if append is not None else self._damage.note_end)
        self._journal.states.announce([append.function_id] if append is not None else [])

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        sql = "UPDATE owed SET due = ?, tries = tries + 1, error = ? WHERE owed_id = ? AND since = ?"
        values = (due_at, error, pending.delivery_id, pending.since)
        await self._end(pending, lambda db: db.execute(sql, values).rowcount, self._damage.note_end)

    async def _end(
        self,
        pending: PendingDelivery,
        write: Callable[[WritingConnection], object],
        note: Callable[[PageDamaged], None],
    ) -> None:
        """Store the end of a try. If it meets a damaged page, the delivery is not made again before a new start."""
        try:
            await self._writer.call(write)
        except PageDamaged as error:
            note(error)
            await self._writer.call(lambda db: self._left_out.add(db, pending.delivery_id))
            raise

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        if not functions:
            return [], 0
        where = _given_up(len(functions))
        page = f"SELECT {_COLUMNS} {where} ORDER BY owed_id LIMIT ? OFFSET ?"

        def read(db: sqlite3.Connection) -> tuple[Sequence[PendingDelivery], int]:
            [count] = db.execute(f"SELECT count(*) {where}", tuple(functions)).fetchone()
            return [_to_pending(row) for row in db.execute(page, (*functions, limit, offset))], count

        return await self._readers.call(read)

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        if not functions:
            return Count(rows=0)
        sql = f"SELECT count(*) FROM (SELECT 1 {_given_up(len(functions))} LIMIT ?)"
        [count] = await self._readers.call(lambda db: db.execute(sql, (*functions, most + 1)).fetchone())
        return Count(rows=min(count, most), more=count > most)

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        if not chosen.functions:
            return [], 0
        sql, values = page(chosen)
        rows, reached = await self._scan(sql, after, (*values, limit + 1))
        deliveries = [_to_pending(row) for row in rows]
        if len(deliveries) > limit:
            return deliveries[:limit], deliveries[limit - 1].delivery_id
        return deliveries, reached

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        if not functions:
            return [], 0
        sql = (
            "SELECT function_id, destination, param, due IS NULL, count(*) FROM owed NOT INDEXED"
            f" WHERE owed_id > ? AND owed_id <= ? AND function_id IN ({marks(len(functions))}) GROUP BY 1, 2, 3, 4"
        )
        rows, reached = await self._scan(sql, after, tuple(functions))
        return [
            DeliveryCount(
                function_id=function_id,
                destination=DestinationSpec(destination=destination, param=param),
                given_up=bool(given_up),
                count=count,
            )
            for function_id, destination, param, given_up, count in rows
        ], reached

    async def _scan(self, sql: str, after: int, values: tuple[object, ...]) -> tuple[list[Any], int]:
        """Return rows of the next ids, and the last of these ids; 0: none follow."""

        def read(db: sqlite3.Connection) -> tuple[list[Any], int]:
            count, last = db.execute(SCANNED_UNTIL, (after, ROWS_SCANNED)).fetchone()
            return db.execute(sql, (after, last, *values)).fetchall(), last if count == ROWS_SCANNED else 0

        return await self._readers.call(read)

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        sql = f"SELECT {_COLUMNS} FROM owed INDEXED BY owed_key WHERE key = ? ORDER BY owed_id"
        return await self._writer.call(lambda db: [_to_pending(row) for row in db.execute(sql, (key,))])

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: Present = None
    ) -> Sequence[PendingDelivery]:
        return await self._writer.call(lambda db: _revive(db, functions, ids, now, present))

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        return await self._writer.call(lambda db: _discard(db, functions, ids, given_up))


def page(chosen: DeliveryFilter) -> tuple[str, tuple[object, ...]]:
    """Return the SQL for a page of a list in the order of ids, and the values of its placeholders.

    Ids of the page, from and to, precede the values, and the number of rows follows.
    """
    wanted = f" AND due IS {'' if chosen.given_up else 'NOT '}NULL AND function_id IN ({marks(len(chosen.functions))})"
    values: tuple[object, ...] = (*chosen.functions,)
    if chosen.destination is not None:
        wanted += " AND destination = ? AND param = ?"
        values += (chosen.destination.destination, chosen.destination.param)
    rows = f"owed NOT INDEXED WHERE owed_id > ? AND owed_id <= ?{wanted}"
    return f"SELECT {_COLUMNS} FROM {rows} ORDER BY owed_id LIMIT ?", values


def _given_up(functions: int) -> str:
    """Return the SQL of the source and the conditions of the given-up deliveries of ``functions`` functions."""
    return f"FROM owed INDEXED BY owed_given_up WHERE due IS NULL AND function_id IN ({marks(functions)})"


def _pending(
    db: sqlite3.Connection, readable: str, now: float, rows: int, each: int
) -> tuple[Sequence[PendingDelivery], float | None]:
    destinations = list(_destinations(db))
    each = min(each, max(1, rows // max(1, len(destinations))))
    deliveries: list[PendingDelivery] = []
    for destination in destinations:
        page = db.execute(
            f"SELECT {_COLUMNS} FROM owed INDEXED BY owed_destination"
            f" WHERE destination = ? AND param = ? AND due <= ?{readable} ORDER BY due LIMIT ?",
            (*destination, now, each),
        )
        deliveries += [_to_pending(row) for row in page]
    later = db.execute(f"SELECT min(due) FROM owed WHERE due > ?{readable}", (now,)).fetchone()[0]
    return sorted(deliveries, key=lambda pending: pending.due_at), later


def _pending_isolated(
    db: sqlite3.Connection, left_out: LeftOut, now: float, rows: int
) -> tuple[Sequence[PendingDelivery], float | None]:
    """Read deliveries one by one in the order of due times, and leave out those that cannot be read."""
    sql = (
        f"SELECT owed_id, due FROM owed INDEXED BY owed_due WHERE due IS NOT NULL{left_out.condition}"
        " ORDER BY due LIMIT ?"
    )
    listed = left_out.keys(db, sql, (rows + 1,))
    ids = [delivery_id for delivery_id, due in listed[:rows] if due <= now]
    owed = left_out.rows(db, f"SELECT {_COLUMNS} FROM owed WHERE owed_id = ?", ids)
    return [_to_pending(row) for row in owed], listed[len(ids)][1] if len(ids) < len(listed) else None


def _destinations(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """Yield destinations with pending deliveries, by one index lookup for each destination instead of a scan."""
    last: tuple[str, str] | None = ("", "")
    while last is not None:
        last = db.execute(
            "SELECT destination, param FROM owed INDEXED BY owed_destination"
            " WHERE due IS NOT NULL AND (destination, param, due) > (?, ?, ?) ORDER BY destination, param LIMIT 1",
            (*last, math.inf),  # without a due time, the lookup would pass all deliveries of the last destination
        ).fetchone()
        if last is not None:
            yield last


def revival(functions: int, rows: int) -> str:
    """Return the SQL that makes deliveries due, with placeholders for ``functions`` and ``rows`` ids.

    ``functions`` is the number of function ids, and ``rows`` the number of delivery ids. Deliveries of other functions
    stay unchanged.
    """
    return (
        "UPDATE owed SET due = ?, since = ?, tries = 0"
        f" WHERE function_id IN ({marks(functions)}) AND owed_id IN ({marks(rows)}) RETURNING {_COLUMNS}"
    )


#: Id, function, version and condition of deliveries, with placeholders as in ``revival``.
_VERSIONS = (
    "SELECT owed_id, owed.function_id, version, condition FROM owed JOIN invocation USING (key)"
    " WHERE owed.function_id IN ({}) AND owed_id IN ({})"
)


def _revive(
    db: sqlite3.Connection, functions: Collection[int], ids: Collection[int], now: float, present: Present
) -> Sequence[PendingDelivery]:
    if present is not None:
        versions = _VERSIONS.format(marks(len(functions)), marks(len(ids)))
        rows = db.execute(versions, (*functions, *ids)).fetchall()
        destinations = [(spec.destination, spec.param, row[0]) for row in rows if (spec := present(*row[1:]))]
        db.executemany("UPDATE owed SET destination = ?, param = ? WHERE owed_id = ?", destinations)
        ids = [delivery_id for _, _, delivery_id in destinations]
    rows = db.execute(revival(len(functions), len(ids)), (now, now, *functions, *ids)).fetchall()
    return sorted((_to_pending(row) for row in rows), key=lambda pending: pending.delivery_id)


def _discard(db: sqlite3.Connection, functions: Collection[int], ids: Collection[int], given_up: bool) -> Sequence[int]:
    rows = db.execute(removal(len(functions), len(ids), given_up), (*functions, *ids))
    return sorted(delivery_id for [delivery_id] in rows.fetchall())


def removal(functions: int, rows: int, given_up: bool = True) -> str:
    """Return the SQL that removes given-up deliveries, or others, with placeholders as in ``revival``."""
    return (
        f"DELETE FROM owed WHERE due IS {'' if given_up else 'NOT '}NULL"
        f" AND function_id IN ({marks(functions)}) AND owed_id IN ({marks(rows)}) RETURNING owed_id"
    )


def _to_pending(row: tuple[Any, ...]) -> PendingDelivery:
    delivery_id, key, function_id, condition, destination, param, due, tries, error, since = row
    return PendingDelivery(
        delivery_id=delivery_id,
        key=key,
        function_id=function_id,
        condition=condition,
        destination=DestinationSpec(destination=destination, param=param),
        due_at=math.inf if due is None else due,
        tries=tries,
        error=error,
        since=since,
    )
