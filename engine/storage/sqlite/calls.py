"""Calls and groups on disk. See ``migrations/0016.sql``.

The end of a member counts by the statement ``COUNT`` of the batch that ends it. A group that is decided then is work
for ``engine.pipeline.groups``, which releases its continuation: a row that is held, as behind an ordering key.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace

from engine.errors import FunctiondError, GroupConflict, IdempotencyConflict, UnknownGroup
from engine.model import ContentKey, Invocation, Record
from engine.model.identity import Identity
from engine.protocols import BatchWritten
from engine.protocols.calls import Decided, Group, GroupState, Links, Membership, NewCall, NewGroup
from engine.storage.sqlite.batch import CallRequest, WriteRequest, WritingConnection
from engine.storage.sqlite.call_writes import (
    AT_PLACE,
    BY_KEY,
    BY_TOKEN,
    GROUP,
    INSERT,
    INSERT_GROUP,
    LAST,
    UNIQUE,
    CallRows,
    check_open,
    depth_of,
    read_group,
    release_row,
    to_group,
)
from engine.storage.sqlite.checksums import result_is_damaged, row_sum
from engine.storage.sqlite.connection import Readers
from engine.storage.sqlite.invocations import SQLiteJournal
from engine.storage.sqlite.rows import HELD, LISTED, RUNNABLE, marks, to_invocation, to_record
from engine.storage.sqlite.writer import Writer, answer

_CANCEL = f"UPDATE call_group SET state = {GroupState.CANCELLING} WHERE state IN (0, 1) AND key"
_LISTED = ", ".join(f"i.{column}" for column in LISTED.split(", "))
#: Records with their results, which a condition follows.
_RESULTS = f"{_LISTED}, body, log, r.sum FROM invocation i LEFT JOIN result r USING (key)"
_MEMBERS = f"SELECT place, {_RESULTS.replace('invocation i', 'call c JOIN invocation i USING (key)')} WHERE c.grp = ?"
_WAITING = f"SELECT {RUNNABLE} FROM invocation LEFT JOIN payload USING (key) WHERE key = ? AND state = {HELD}"


class SQLiteCalls:
    def __init__(self, readers: Readers, writer: Writer, identity: Identity, journal: SQLiteJournal) -> None:
        self._readers, self._writer, self._identity, self._journal = readers, writer, identity, journal
        self.groups_decided = writer.groups_decided

    # --- acceptance -----------------------------------------------------------------------------------------

    def append(
        self,
        calls: Sequence[NewCall],
        *,
        parent: int = 0,
        most_depth: int,
        group: Membership | None = None,
        then: BatchWritten,
    ) -> asyncio.Future[Sequence[str | FunctiondError]]:
        def write(db: WritingConnection) -> tuple[Any, CallRows]:
            rows = CallRows(parent, depth_of(db, parent, most_depth))
            return self._append(db, calls, rows, group), rows

        return self._submit(write, [new for call in calls for new in call.invocations], then)

    def create(
        self, group: NewGroup, *, parent: int = 0, most_depth: int, then: BatchWritten
    ) -> asyncio.Future[tuple[int, int]]:
        first = group.continuation

        def write(db: WritingConnection) -> tuple[Any, CallRows]:
            rows = CallRows(parent, depth_of(db, parent, most_depth))
            row = db.execute(BY_KEY, (group.project, group.token)).fetchone()
            if row is not None:
                return (row[0], db.execute(LAST, row).fetchone()[0]), rows
            if first is not None:
                rows.add(first, None)
            kind = 2 if first is None else 0
            fixed = (group.key, group.project, group.token or None, kind, int(group.need_all), group.created)
            rows.groups.append((*fixed, None, 0, row_sum(*fixed)))
            self._store(db, rows)
            return (group.key, first.invocations[-1].key if first else 0), rows

        return self._submit(write, first.invocations if first else (), then)

    def _submit(
        self,
        write: Callable[[WritingConnection], tuple[Any, CallRows]],
        made: Sequence[Invocation],
        then: BatchWritten,
    ) -> asyncio.Future[Any]:
        self._journal.damage.check()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(request: WriteRequest) -> None:
            self._journal.damage.note_append(request.error)
            stored: Sequence[Invocation] = ()
            if request.error is None:
                request.value, rows = request.value
                stored = rows.stored
            keys = {invocation.key for invocation in stored}
            then(stored, [invocation for invocation in made if invocation.key not in keys])
            answer(future, request)

        self._writer.submit(CallRequest(write, done))
        self._journal.states.announce(invocation.function_id for invocation in made)
        return future

    def _append(
        self, db: WritingConnection, calls: Sequence[NewCall], rows: CallRows, group: Membership | None
    ) -> list[str | FunctiondError]:
        if group is not None:
            check_open(db, self._identity, group, len(calls))
        results: list[str | FunctiondError] = []
        tokens = [call.token for call in calls if call.token]
        rows.first = dict(db.execute(BY_TOKEN.format(marks(len(tokens))), (rows.parent, *tokens)))
        before, members, spare = len(rows.calls), 0, 0
        for number, call in enumerate(calls):
            place = None if group is None else (group.group, group.first + number)
            try:
                earlier = self._earlier(db, call, rows, place)
            except IdempotencyConflict as conflict:
                if group is not None:
                    problem = f"cannot take calls[{number}]: another invocation has its key {call.key!r}"
                    raise GroupConflict(self._identity.request_id(group.group), problem) from None
                results.append(conflict)
                continue
            if earlier is None:
                if place is not None and call.token and db.execute(AT_PLACE, place).fetchone() is not None:
                    spare = spare or _spare(db, place[0], place[1] + len(calls))
                    place, spare = (place[0], spare), spare + 1
                rows.add(call, place)
                members += 1
            results.append(self._identity.request_id(earlier) if earlier else call.invocations[-1].request_id)
        if len(rows.calls) > before:
            self._store(db, rows)
        if group is not None and members:
            db.execute("UPDATE call_group SET stored = stored + ? WHERE key = ?", (members, group.group))
        return results

    def _earlier(
        self, db: WritingConnection, call: NewCall, rows: CallRows, place: tuple[int, int] | None
    ) -> int | None:
        """Return the key of an earlier invocation that stands for a call; None if the call is new.

        Raises IdempotencyConflict if its key was used with another content, or by one that is no member of its group.
        """
        if place is not None and not call.token and (row := db.execute(AT_PLACE, place).fetchone()) is not None:
            return int(row[0])
        last = call.invocations[-1]
        if call.key:
            earlier = self._journal.claim(db, last, ContentKey(call.key, call.content))
            if earlier is not None and place is not None:
                raise IdempotencyConflict(call.key)
            return None if earlier is None else self._identity.key_of(earlier)
        first = rows.first.get(call.token)
        if call.only and first is None:
            if (first := rows.first.get(call.only)) is None:
                [first] = db.execute(UNIQUE, (call.only,)).fetchone() or [None]
            rows.first[call.only] = first or last.key
        if call.token:
            rows.first[call.token] = first or last.key
        return first

    def _store(self, db: WritingConnection, rows: CallRows) -> None:
        held = self._journal.store(db, rows.made)
        rows.stored = [replace(new, held=True) if new.key in held else new for new in rows.made]
        db.executemany(INSERT, rows.calls)
        db.executemany(INSERT_GROUP, rows.groups)

    # --- groups ---------------------------------------------------------------------------------------------

    async def seal(self, key: int, project: str, total: int) -> None:
        def write(db: WritingConnection) -> None:
            group = self._own(db, key, project)
            if group.stored < total:
                raise GroupConflict(self._identity.request_id(key), f"has {group.stored} members, not {total}")
            state = f"CASE WHEN state = 0 AND done >= stored THEN {GroupState.DECIDED} ELSE state END"
            db.execute(f"UPDATE call_group SET total = stored, state = {state} WHERE key = ?", (key,))

        await self._writer.call(write)

    async def cancel(self, key: int, project: str) -> None:
        def write(db: WritingConnection) -> None:
            self._own(db, key, project)
            db.execute(f"{_CANCEL} = ?", (key,))

        await self._writer.call(write)

    async def group(self, key: int) -> Group | None:
        return await self._readers.call(lambda db: read_group(db, key))

    async def members(self, key: int, after: int, limit: int, size: int) -> tuple[Sequence[tuple[int, Record]], bool]:
        sql = f"{_MEMBERS} AND c.place > ? ORDER BY place LIMIT ?"

        def read(db: sqlite3.Connection) -> tuple[Sequence[tuple[int, Record]], bool]:
            found, left = list[tuple[int, Record]](), size
            for place, *row in db.execute(sql, (key, after, limit + 1)):
                record = self._with_result(row)
                left -= len(record.result)
                if len(found) == limit or (found and left < 0):
                    return found, True
                found.append((place, record))
            return found, False

        return await self._readers.call(read)

    def _own(self, db: sqlite3.Connection, key: int, project: str) -> Group:
        group = read_group(db, key)
        if group is None or group.project != project:
            raise UnknownGroup(self._identity.request_id(key))
        return group

    # --- invocations ----------------------------------------------------------------------------------------

    async def ended(self, keys: Collection[int], size: int) -> tuple[Sequence[Record], int, frozenset[int]]:
        states = f"SELECT key, state FROM invocation WHERE key IN ({marks(len(keys))})"

        def read(db: sqlite3.Connection) -> tuple[Sequence[Record], int, frozenset[int]]:
            known = dict(db.execute(states, tuple(keys)))
            over, records, left = [key for key in keys if known.get(key, 0) >= 3], list[Record](), size
            for key in over:
                record = self._with_result(db.execute(f"SELECT {_RESULTS} WHERE i.key = ?", (key,)).fetchone())
                left -= len(record.result)
                if records and left < 0:
                    break
                records.append(record)
            return records, len(over), frozenset(keys) - known.keys()

        return await self._readers.call(read)

    async def links(self, key: int) -> Links:
        own = (
            "SELECT parent, nullif(g.kind, 1) IS NOT NULL, grp, place FROM call c LEFT JOIN call_group g ON g.key = grp"
        )

        def read(db: sqlite3.Connection) -> Links:
            parent, member, group, place = db.execute(f"{own} WHERE c.key = ?", (key,)).fetchone() or (0, 0, 0, 0)
            [children] = db.execute("SELECT count(*) FROM call WHERE parent = ?", (key,)).fetchone()
            group, place = (group, place) if member else (0, 0)  # not of a step of a chain
            waits_for = read_group(db, key)
            return Links(parent=parent or 0, children=children, group=group, place=place, waits_for=waits_for)

        return await self._readers.call(read)

    async def children(self, key: int, after: int, limit: int) -> Sequence[tuple[int, Record]]:
        sql = (
            f"SELECT (SELECT count(*) FROM call d WHERE d.parent = c.key), {_LISTED} FROM call c JOIN invocation i"
            " USING (key) WHERE c.parent = ? AND c.key > ? ORDER BY c.key LIMIT ?"
        )
        rows = await self._readers.call(lambda db: db.execute(sql, (key, after, limit)).fetchall())
        return [(count, to_record(tuple(row), self._identity)) for count, *row in rows]

    async def unended(self, root: int, limit: int) -> Sequence[Record]:
        tree = (
            "WITH RECURSIVE tree (key) AS (SELECT ?1 UNION SELECT c.key FROM tree JOIN call c ON c.parent = tree.key)"
        )
        return await self._listed(f"{tree} SELECT {_LISTED} FROM tree JOIN invocation i USING (key)", 3, root, limit)

    async def _listed(self, sql: str, below: int, *values: float) -> Sequence[Record]:
        """Return records in states below a number."""
        sql = f"{sql} WHERE i.state < {below} LIMIT ?{len(values)}"
        rows = await self._readers.call(lambda db: db.execute(sql, values).fetchall())
        return [to_record(row, self._identity) for row in rows]

    # --- work of the engine ---------------------------------------------------------------------------------

    async def decided(self, limit: int, without: Collection[int]) -> Sequence[Decided]:
        sql = f"SELECT {GROUP} FROM call_group INDEXED BY call_group_work WHERE state IN (1, 2)"
        sql, keys = f"{sql} AND key NOT IN ({marks(len(without))}) LIMIT ?", tuple(without)

        def read(db: sqlite3.Connection) -> Sequence[Decided]:
            found = []
            for group in [to_group(row) for row in db.execute(sql, (*keys, limit))]:
                failed = " AND i.state > 3" if group.failed else ""
                member = waiting = None
                if group.chain or (group.failed and group.need_all):
                    member = db.execute(f"{_MEMBERS}{failed} ORDER BY place LIMIT 1", (group.key,)).fetchone()
                waiting = db.execute(_WAITING, (group.key,)).fetchone()
                found.append(
                    Decided(
                        group=group,
                        continuation=waiting and to_invocation(waiting, self._identity),
                        member=member and self._with_result(member[1:]),
                    )
                )
            return found

        return await self._readers.call(read)

    async def end(
        self, key: int, state: GroupState, message: str, now: float, release: tuple[bytes, float] | None = None
    ) -> int:
        sql = "UPDATE call_group SET state = ?, ended = ?, message = ? WHERE key = ? AND ended IS NULL"

        def write(db: WritingConnection) -> int:
            ended = db.execute(sql, (state, now, message, key)).rowcount
            return release_row(db, key, now, *release) if release is not None and ended else 0

        grown = await self._writer.call(write)
        if release is not None:
            self._journal.released()
        return grown

    async def members_to_end(self, key: int, limit: int) -> Sequence[Record]:
        sql = f"{_CANCEL} IN (SELECT key FROM call WHERE grp = ?)"
        await self._writer.call(lambda db: db.execute(sql, (key,)).rowcount)
        sql = f"SELECT {_LISTED} FROM (SELECT key FROM call WHERE grp = ?1) JOIN invocation i USING (key)"
        return await self._listed(sql, 3, key, limit)

    async def expired(self, now: float, limit: int) -> tuple[Sequence[Record], float | None]:
        sql = f"SELECT {_LISTED} FROM (SELECT key FROM call WHERE expires <= ?1) JOIN invocation i USING (key)"
        later = "SELECT min(expires) FROM call WHERE expires > ?"
        [expires] = await self._readers.call(lambda db: db.execute(later, (now,)).fetchone())
        return await self._listed(sql, 2, now, limit), expires

    async def clear_expired(self, now: float) -> None:
        sql = "UPDATE call SET expires = NULL WHERE expires <= ?"
        await self._writer.call(lambda db: db.execute(sql, (now,)).rowcount)

    async def abandon(self, before: float) -> float | None:
        sql = f"UPDATE call_group SET state = {GroupState.DECIDED} WHERE total IS NULL AND state = 0 AND created <= ?"
        later = "SELECT min(created) FROM call_group INDEXED BY call_group_unsealed WHERE total IS NULL AND state = 0"

        def write(db: WritingConnection) -> float | None:
            db.execute(sql, (before,))
            created: float | None = db.execute(later).fetchone()[0]
            return created

        return await self._writer.call(write)

    def _with_result(self, row: Sequence[Any]) -> Record:
        *listed, body, log, stored = row
        record = to_record(tuple(listed), self._identity)
        if body is None:
            return record
        if result_is_damaged(record.key, body, log, stored):
            return replace(record, damaged=frozenset({"result"}))
        return replace(record, result=bytes(body))


def _spare(db: sqlite3.Connection, group: int, least: int) -> int:
    """Return a place for a call of a repeated run, which makes its calls in another order than before."""
    last: int = db.execute("SELECT max(place) FROM call WHERE grp = ?", (group,)).fetchone()[0]
    return max(least, last + 1)
