"""Records of invocations for the API and the console, read on short-lived read-only connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import aiosqlite
from msgspec.structs import replace

from engine.errors import Unavailable
from engine.model import Record, State
from engine.model.identity import Identity, accepted_at, key_at
from engine.model.retry import HISTORY
from engine.protocols import Count, Found, Place, Purged, Queued, Scan, Selection, Standing
from engine.storage.sqlite.attempts import ATTEMPTS, to_attempt
from engine.storage.sqlite.checksums import payload_problem, result_is_damaged
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.damage import ADVICE, INDEXES, TABLES, DamageNotes, is_damage, left_out
from engine.storage.sqlite.isolated_lists import LENIENT, list_isolated
from engine.storage.sqlite.older_tables import OLDER, older_tables
from engine.storage.sqlite.purge import Purge
from engine.storage.sqlite.queued import read_queued
from engine.storage.sqlite.rebuild import note_unreadable, read_indexes
from engine.storage.sqlite.record_search import CHUNK, ENDED, MANY, RUNNING, Search, nearby
from engine.storage.sqlite.rows import LISTED, to_record
from engine.storage.sqlite.selections import parts, source
from engine.storage.sqlite.waiting_scan import read_standing, scan_waiting
from engine.storage.sqlite.writer import Writer

T = TypeVar("T")


class SQLiteRecords:
    def __init__(self, readers: Readers, writer: Writer, identity: Identity, notes: DamageNotes | None = None) -> None:
        self._readers = readers
        self._writer = writer
        self._identity = identity
        self._notes = notes or DamageNotes()
        self._purge = Purge(identity, self._notes)

    @property
    def incomplete(self) -> bool:
        return any(one.name == "invocation" for one in self._notes.ranges)

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        try:
            return await self._list(selection)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
        try:
            listed = await self._readers.call(lambda db: list_isolated(db, selection, self._identity, self._readable))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            await self._writer.call(
                lambda db: read_indexes(db, INDEXES), lambda db: note_unreadable(db, self._notes, INDEXES)
            )
            raise Unavailable(
                "an index of the invocations is damaged; restart the engine, which rebuilds it"
            ) from error
        for key, problem in listed.lost.items():
            if not self._notes.covers(key, ("invocation",)):
                await self._note(key, problem)
        return listed.records, listed.total

    @property
    def _readable(self) -> str:
        """SQL condition that leaves out noted rows; empty without notes."""
        return left_out("key", ("invocation",)) if self._notes.ranges else ""

    async def _note(self, key: int, error: BaseException) -> None:
        """Note the rows on the page of an invocation, unless the writer can read it."""
        await self._writer.call(
            lambda db: db.execute(TABLES["invocation"], (key,)).fetchone(),
            lambda db: self._notes.note_row(db, key, error),
        )

    async def _list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        found: list[Record] = []
        total, skip = 0, selection.offset
        async with self._readers.one() as db:  # in one snapshot, each row is in exactly one part
            for states, part, order in parts(selection):
                wanted = selection.states & states if selection.states else states
                if not wanted:
                    continue
                filtered = wanted if wanted != states else frozenset()
                rows_from, values = source(selection, part, order, filtered, self._readable)
                room = selection.limit - len(found)
                count = room
                if selection.counted:
                    count = (await _all(db, f"SELECT count(*) FROM {rows_from}", values))[0][0]
                if room > 0 and count > skip:
                    page = f"SELECT {LISTED} FROM {rows_from} ORDER BY {order} LIMIT ? OFFSET ?"
                    rows = await _all(db, page, [*values, room, skip])
                    found.extend(to_record(row, self._identity) for row in rows)
                skip = max(0, skip - count)
                total += count
        return found, total

    async def search(self, selection: Selection, start: Place | None, limit: int, *, back: bool = False) -> Found:
        def step(db: sqlite3.Connection, most: int) -> Found:
            return Search(db, selection, self._readable, most).records(start, limit, back, self._identity)

        return await self._searched(step, selection, start)

    async def count(self, selection: Selection, most: int) -> Count:
        return await self._searched(lambda db, rows: Search(db, selection, self._readable, rows).count(most), selection)

    async def _searched(
        self, step: Callable[[sqlite3.Connection, int], T], selection: Selection, start: Place | None = None
    ) -> T:
        """Return the result of ``step``, which is called with the largest number of rows to read.

        After it met a damaged page, it reads less. If it still meets one, the rows there are noted and left out.
        """
        for most in (MANY, CHUNK, CHUNK):
            try:
                return await self._readers.call(partial(_snapshot, step=step, most=most))
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
            if most == CHUNK:
                await self.list(nearby(selection, start))
        raise Unavailable(f"the next records are on a damaged page of the journal; {ADVICE}")

    async def get(self, key: int) -> Record | None:
        async with self._readers.one() as db:
            rows = await _part(db, f"SELECT {LISTED}, size, trace, cause FROM invocation WHERE key = ?", key)
            if rows is None:
                raise Unavailable(f"the record is on a damaged page of the journal; {ADVICE}")
            if not rows:
                return None
            *listed, size, trace, cause = rows[0]
            record = to_record(tuple(listed), self._identity, trace=trace or "", cause=cause or 0)
            return replace(record, **await _parts_of(db, record, size))

    async def newest_logs(self, function_id: int, most: int) -> Sequence[Record]:
        def step(db: sqlite3.Connection, rows: int) -> Sequence[Record]:
            found: list[Record] = []
            for states, back in ((RUNNING, True), (ENDED, False)):
                selection = Selection(function_id=function_id, states=states)
                search = Search(db, selection, self._readable, rows)
                found += search.records(None, most, back, self._identity).records
            tables = ["result", *(older.name for older in older_tables(db, "result"))]
            return [replace(one, log=_log(db, tables, one.key)) if one.state.final else one for one in found]

        return await self._searched(step, Selection(function_id=function_id))

    async def caused_by(self, key: int, most: int) -> Sequence[Record]:
        async with self._readers.one() as db:
            rows = await _part(db, f"SELECT {LISTED} FROM invocation WHERE cause = ? ORDER BY key LIMIT {most:d}", key)
        return [to_record(row, self._identity) for row in rows or ()]

    async def waiting(self, selection: Selection, after: Place, limit: int) -> Scan:
        for last in (False, True):
            try:
                return await self._readers.call(lambda db: scan_waiting(db, selection, after, limit, self._readable))
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                if last:
                    raise Unavailable(
                        f"some waiting invocations are on a damaged page of the journal; {ADVICE}"
                    ) from error
            await self.list(Selection(function_id=selection.function_id))  # notes the rows that it cannot read
        raise AssertionError

    async def standing(self, key: int, most: int) -> Standing:
        try:
            return await self._readers.call(lambda db: read_standing(db, key, most, self._readable))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise Unavailable(f"its place is on a damaged page of the journal; {ADVICE}") from error

    async def queued(self, functions: Sequence[int], most: int) -> Mapping[int, Queued]:
        try:
            return await self._readers.call(lambda db: read_queued(db, functions, most, self._readable))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            raise Unavailable(f"some waiting invocations are on a damaged page of the journal; {ADVICE}") from error

    async def newest(self, before: float) -> float | None:
        try:
            async with self._readers.one() as db:
                [(key,)] = await _all(db, "SELECT max(key) FROM invocation WHERE key < ?", [key_at(before)])
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return None  # on a damaged page, which must not stop others
        return None if key is None else accepted_at(key)

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        return await self._writer.call(
            lambda db: self._purge.step(db, now, age, rows, size),
            lambda db: self._purge.step_isolated(db, now, age, rows, size),
        )


def _snapshot(db: sqlite3.Connection, step: Callable[[sqlite3.Connection, int], T], most: int) -> T:
    db.text_factory = LENIENT
    db.execute("BEGIN")
    return step(db, most)


def _log(db: sqlite3.Connection, tables: Sequence[str], key: int) -> bytes:
    """Return the stored end of a log; empty without one, or if it is damaged."""
    try:
        found = (db.execute(f"SELECT body, log, sum FROM {table} WHERE key = ?", (key,)).fetchone() for table in tables)
        row = next(filter(None, found), None)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return b""
    return b"" if row is None or result_is_damaged(key, *row) else bytes(row[1])


async def _parts_of(db: aiosqlite.Connection, record: Record, size: int) -> dict[str, Any]:
    """Return payload, result, log and attempts of an invocation, and the names of those that are damaged.

    ``size`` is the number of bytes of the payload. Parts that cannot be read are left out. Only those that the
    invocation can have count as damaged, because a search for others may end on a damaged page, too.
    """
    parts: dict[str, Any] = {}
    damaged = set()
    payload = await _newest(db, "payload", "SELECT body, sum FROM {} WHERE key = ?", record.key)
    if payload is None or payload_problem(record.key, size, *(payload or [(None, None)])[0]):
        damaged.add("payload")
    else:
        parts["payload"] = payload[0][0]
    again = record.attempt > 1
    ran = again or (record.started_at is not None and record.ended_at is not None)
    result = await _newest(db, "result", "SELECT body, log, sum FROM {} WHERE key = ?", record.key, replaced=again)
    if (result is None and ran) or (result and result_is_damaged(record.key, *result[0])):
        damaged.add("result")
    elif result:
        parts["result"], parts["log"], _ = result[0]
    history, whole = await _history(db, record.key)
    if not whole and (again or (ran and record.state is not State.SUCCESS)):
        damaged.add("attempts")
    return {**parts, "attempts": tuple(map(to_attempt, history)), "damaged": frozenset(damaged)}


async def _newest(
    db: aiosqlite.Connection, table: str, sql: str, key: int, *, replaced: bool = False
) -> list[tuple[Any, ...]] | None:
    """Return the row of a key as ``_part`` does, from the newest table that has one, see ``older_tables``.

    ``replaced``: an older table may have a row that was replaced in a newer one. Behind a damaged page of the newer
    one, it is not returned.
    """
    found = await _part(db, sql.format(table), key)
    for name in () if found else await _older(db, table, key):
        if found is None and replaced:
            return None
        older = await _part(db, sql.format(name), key)
        if older:
            return older
        found = None if older is None else found
    return found


async def _history(db: aiosqlite.Connection, key: int) -> tuple[list[tuple[Any, ...]], bool]:
    """Return the attempts of an invocation from all tables, and whether none of them is on a damaged page."""
    found = await _part(db, ATTEMPTS.format("attempt"), key)
    rows, whole = found or [], found is not None
    for name in await _older(db, "attempt", key):
        if len(rows) >= HISTORY or (rows and rows[0][0] == 1):
            break  # complete; a further search could end on a damaged page
        older = await _part(db, ATTEMPTS.format(name), key)
        rows, whole = [*(older or ()), *rows], whole and older is not None
    return rows[-HISTORY:], whole


async def _older(db: aiosqlite.Connection, table: str, key: int) -> list[str]:
    """Return the names of the older tables that can have rows of an invocation, newest first."""
    return [name for name, until in await _all(db, OLDER, [table]) if key <= until]


async def _part(db: aiosqlite.Connection, sql: str, key: int) -> list[tuple[Any, ...]] | None:
    """Return the rows that a statement selects for a key, or None if they are behind a damaged page."""
    try:
        return await _all(db, sql, [key])
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return None


async def _all(db: aiosqlite.Connection, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await db.execute_fetchall(sql, values)]
