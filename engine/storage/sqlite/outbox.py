"""Outbox on disk: pending deliveries, and deliveries that were given up."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from engine.errors import Unavailable
from engine.model import DestinationSpec, Invocation, PendingDelivery
from engine.protocols import Count, DeliveryCount, DeliveryFilter, PresentDestination
from engine.storage.sqlite import delivery_lists
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import DamageNotes, is_damage, left_out, read_keys
from engine.storage.sqlite.delivery_lists import COLUMNS, INDEXES, marks
from engine.storage.sqlite.invocation_writes import insert
from engine.storage.sqlite.isolated_lists import Candidates
from engine.storage.sqlite.rebuild import note_unreadable, read_indexes
from engine.storage.sqlite.salvage import store_each
from engine.storage.sqlite.status_log import StatusRows
from engine.storage.sqlite.writer import Writer

#: Largest number of rows scanned for one page, or for counts. Includes rows that do not match.
ROWS_SCANNED = 20_000
Present = PresentDestination | None


class SQLiteOutbox:
    def __init__(
        self, readers: Readers, writer: Writer, notes: DamageNotes | None = None, states: StatusRows | None = None
    ) -> None:
        self._readers, self._writer, self._notes = readers, writer, notes or DamageNotes()
        self._states = states or StatusRows()

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        return await self._writer.call(
            lambda db: _pending(db, self._readable, now, rows, each), lambda db: self._pending_isolated(db, now, rows)
        )

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM owed WHERE owed_id = ?", (pending.delivery_id,))
            if append is not None:
                insert(db, append, self._notes.readable)
                self._states.insert_accepted(db, [append])

        await self._writer.call(write)
        self._states.announce([append.function_id] if append is not None else [])

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        await self._writer.call(
            lambda db: (
                db.execute(
                    "UPDATE owed SET due = ?, tries = tries + 1, error = ? WHERE owed_id = ? AND since = ?",
                    (due_at, error, pending.delivery_id, pending.since),
                ).rowcount
            )
        )

    @property
    def _readable(self) -> str:
        """SQL condition that leaves out noted deliveries; empty without notes."""
        return left_out("owed_id", ("owed",)) if self._notes.ranges else ""

    def _pending_isolated(
        self, db: sqlite3.Connection, now: float, rows: int
    ) -> tuple[Sequence[PendingDelivery], float | None]:
        """Read deliveries one by one in the order of due times. Note those that cannot be read, and leave them out."""
        ids, error = read_keys(
            db,
            f"SELECT owed_id, due FROM owed INDEXED BY owed_due WHERE due IS NOT NULL{self._readable}"
            " ORDER BY due LIMIT ?",
            (rows + 1,),
        )
        if error is not None:
            self._notes.note_index(db, "owed_due", error)
        found: list[PendingDelivery] = []
        for delivery_id, due in ids:
            if due > now or len(found) == rows:
                return found, due
            found += self._each(db, [delivery_id])
        return found, None

    def _each(self, db: sqlite3.Connection, ids: Iterable[int]) -> Iterator[PendingDelivery]:
        """Yield deliveries read one by one. Note those that cannot be read."""
        for delivery_id in ids:
            try:
                row = db.execute(f"SELECT {COLUMNS} FROM owed WHERE owed_id = ?", (delivery_id,)).fetchone()
            except sqlite3.DatabaseError as problem:
                if not is_damage(problem):
                    raise
                self._notes.note(db, "owed", delivery_id, delivery_id, problem)
                continue
            if row is not None:
                yield _to_pending(*row)

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        if not functions:
            return [], 0
        where = delivery_lists.given_up(len(functions))
        page = f"SELECT {COLUMNS} {where} ORDER BY owed_id LIMIT ? OFFSET ?"
        try:
            async with self._readers.one() as db:
                found: Iterable[Any] = await db.execute_fetchall(page, (*functions, limit, offset))
                [(count,)] = await db.execute_fetchall(f"SELECT count(*) {where}", tuple(functions))
        except sqlite3.DatabaseError as error:
            listing = delivery_lists.given_up_ids(len(functions))
            found, count = await self._left(error, (listing, *functions), ("",), limit, offset)
        return [_to_pending(*row) for row in found], count

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        if not functions:
            return Count(rows=0)
        try:
            async with self._readers.one() as db:
                counted = delivery_lists.given_up_count(len(functions))
                [(count,)] = await db.execute_fetchall(counted, (*functions, most + 1))
        except sqlite3.DatabaseError as error:
            _, count = await self._left(error, (delivery_lists.given_up_ids(len(functions)), *functions), ("",), 0)
        return Count(rows=min(count, most), more=count > most)

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        if not chosen.functions:
            return [], 0
        conditions, values = delivery_lists.conditions(chosen)
        try:
            async with self._readers.one() as db:
                [(count, last)] = await db.execute_fetchall(delivery_lists.SCANNED_UNTIL, (after, ROWS_SCANNED))
                rows: Iterable[Any] = await db.execute_fetchall(
                    delivery_lists.page(conditions), (after, last, *values, limit + 1)
                )
        except sqlite3.DatabaseError as error:
            listing = delivery_lists.ids(chosen.given_up)
            rows, _ = await self._left(error, (listing, after), (conditions, *values), limit + 1)
            count = last = 0
        found = [_to_pending(*row) for row in rows]
        if len(found) > limit:
            return found[:limit], found[limit - 1].delivery_id
        return found, last if count == ROWS_SCANNED else 0

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        if not functions:
            return [], 0
        try:
            async with self._readers.one() as db:
                [(count, last)] = await db.execute_fetchall(delivery_lists.SCANNED_UNTIL, (after, ROWS_SCANNED))
                rows: Iterable[Any] = await db.execute_fetchall(
                    delivery_lists.counts(len(functions)), (after, last, *functions)
                )
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise Unavailable("a page of the deliveries is damaged, so they cannot be counted") from error
        return [delivery_lists.to_count(*row) for row in rows], last if count == ROWS_SCANNED else 0

    async def _left(
        self,
        error: sqlite3.DatabaseError,
        listing: tuple[str, *tuple[object, ...]],
        wanted: tuple[str, *tuple[object, ...]],
        limit: int,
        offset: int = 0,
    ) -> tuple[Sequence[tuple[Any, ...]], int]:
        """Return the readable rows of a list that met a damaged page, and their number. Note the other rows.

        ``listing`` is a statement with its values that returns the ids of all rows from an index. ``wanted`` has
        conditions with their values.
        """
        if not is_damage(error):
            raise error

        def read(db: sqlite3.Connection) -> tuple[dict[int, sqlite3.DatabaseError], list[tuple[Any, ...]], int]:
            found = Candidates(db, "owed", "owed_id", "since")
            found.add(0, listing[0], listing[1:])
            lost = found.leave_out_unreadable()
            return lost, *found.page(0, COLUMNS, wanted[0], wanted[1:], limit, offset)

        try:
            lost, rows, count = await self._readers.call(read)
        except sqlite3.DatabaseError as damage:
            if not is_damage(damage):
                raise
            await self._writer.call(
                lambda db: read_indexes(db, INDEXES), lambda db: note_unreadable(db, self._notes, INDEXES)
            )
            raise Unavailable(
                "an index of the deliveries is damaged; restart the engine, which rebuilds it"
            ) from damage
        for delivery_id, problem in lost.items():
            await self._note(delivery_id, problem)
        return rows, count

    async def _note(self, delivery_id: int, error: sqlite3.DatabaseError) -> None:
        """Note a delivery, unless the writer can read it."""
        await self._writer.call(
            lambda db: db.execute("SELECT * FROM owed WHERE owed_id = ?", (delivery_id,)).fetchone(),
            lambda db: self._notes.note(db, "owed", delivery_id, delivery_id, error),
        )

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        sql = f"SELECT {COLUMNS} FROM owed INDEXED BY owed_key WHERE key = ? ORDER BY owed_id"
        return await self._writer.call(
            lambda db: [_to_pending(*row) for row in db.execute(sql, (key,))],
            lambda db: self._deliveries_isolated(db, key),
        )

    def _deliveries_isolated(self, db: sqlite3.Connection, key: int) -> Sequence[PendingDelivery]:
        ids, error = read_keys(
            db, "SELECT owed_id FROM owed INDEXED BY owed_key WHERE key = ? ORDER BY owed_id", (key,)
        )
        if error is not None:
            self._notes.note_index(db, "owed_key", error)
        return list(self._each(db, [delivery_id for [delivery_id] in ids]))

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: Present = None
    ) -> Sequence[PendingDelivery]:
        return await self._writer.call(
            lambda db: _revive(db, functions, ids, now, present),
            lambda db: _revive_isolated(db, functions, ids, now, present),
        )

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        return await self._writer.call(
            lambda db: _discard(db, functions, ids, given_up),
            lambda db: _discard_isolated(db, functions, ids, given_up),
        )


def _pending(
    db: sqlite3.Connection, readable: str, now: float, rows: int, each: int
) -> tuple[Sequence[PendingDelivery], float | None]:
    destinations = list(_destinations(db))
    each = min(each, max(1, rows // max(1, len(destinations))))
    found: list[PendingDelivery] = []
    for destination in destinations:
        page = db.execute(
            f"SELECT {COLUMNS} FROM owed INDEXED BY owed_destination"
            f" WHERE destination = ? AND param = ? AND due <= ?{readable} ORDER BY due LIMIT ?",
            (*destination, now, each),
        )
        found += [_to_pending(*row) for row in page]
    later = db.execute(f"SELECT min(due) FROM owed WHERE due > ?{readable}", (now,)).fetchone()[0]
    return sorted(found, key=lambda pending: pending.due_at), later


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
        f" WHERE function_id IN ({marks(functions)}) AND owed_id IN ({marks(rows)}) RETURNING {COLUMNS}"
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
        found = [(one.destination, one.param, row[0]) for row in rows if (one := present(*row[1:]))]
        db.executemany("UPDATE owed SET destination = ?, param = ? WHERE owed_id = ?", found)
        ids = [delivery_id for _, _, delivery_id in found]
    rows = db.execute(revival(len(functions), len(ids)), (now, now, *functions, *ids)).fetchall()
    return sorted((_to_pending(*row) for row in rows), key=lambda pending: pending.delivery_id)


def _revive_isolated(
    db: sqlite3.Connection, functions: Collection[int], ids: Collection[int], now: float, present: Present
) -> Sequence[PendingDelivery]:
    """Make deliveries due, except those that cannot be written because of a damaged page."""
    found: dict[int, PendingDelivery] = {}

    def revive(db: sqlite3.Connection, delivery_id: int) -> None:
        found.update((one.delivery_id, one) for one in _revive(db, functions, [delivery_id], now, present))

    for delivery_id, _ in store_each(db, ids, revive):
        found.pop(delivery_id, None)
    return [found[delivery_id] for delivery_id in sorted(found)]


def _discard(db: sqlite3.Connection, functions: Collection[int], ids: Collection[int], given_up: bool) -> Sequence[int]:
    rows = db.execute(removal(len(functions), len(ids), given_up), (*functions, *ids))
    return sorted(delivery_id for [delivery_id] in rows.fetchall())


def removal(functions: int, rows: int, given_up: bool = True) -> str:
    """Return the SQL that removes given-up deliveries, or others, with placeholders as in ``revival``."""
    return (
        f"DELETE FROM owed WHERE due IS {'' if given_up else 'NOT '}NULL"
        f" AND function_id IN ({marks(functions)}) AND owed_id IN ({marks(rows)}) RETURNING owed_id"
    )


def _discard_isolated(
    db: sqlite3.Connection, functions: Collection[int], ids: Collection[int], given_up: bool
) -> Sequence[int]:
    """Remove deliveries, except those that cannot be removed because of a damaged page."""
    found: set[int] = set()
    lost = store_each(db, ids, lambda db, one: found.update(_discard(db, functions, [one], given_up)))
    return sorted(found - {delivery_id for delivery_id, _ in lost})


def _to_pending(
    delivery_id: int,
    key: int,
    function_id: int,
    condition: str,
    destination: str,
    param: str,
    due: float | None,
    tries: int,
    error: str,
    since: float,
) -> PendingDelivery:
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
