"""Journal of invocations on disk. All writes use one writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from engine.errors import PageDamaged
from engine.model import Invocation
from engine.model.identity import Identity
from engine.model.signal import Signal
from engine.protocols import Recovery, Settlement, WaitingEnd
from engine.storage.sqlite.batch import CallRequest, Statement, WriteRequest, WritingConnection
from engine.storage.sqlite.damage import Damage
from engine.storage.sqlite.invocation_writes import append_rows, claim, end_all, insert_all, settle_rows
from engine.storage.sqlite.rows import POISONED, READY, REVIVE, RUNNABLE, to_crashed
from engine.storage.sqlite.status_log import StatusRows
from engine.storage.sqlite.window import next_due
from engine.storage.sqlite.writer import Writer, answer

_BACKLOG = "SELECT function_id, rows, size FROM tally WHERE function_id >= 0"


class SQLiteJournal:
    """Journal in SQLite (protocol ``engine.protocols.Journal``)."""

    def __init__(
        self,
        writer: Writer,
        identity: Identity,
        *,
        damage: Damage,
        idempotency_retention: float = 86_400.0,
        states: StatusRows | None = None,
    ) -> None:
        self._writer = writer
        self.states = states or StatusRows()
        self.damage = damage
        self._identity = identity
        self._idempotency_retention = idempotency_retention
        self._starts: dict[int, _Start] = {}
        self.released: Signal[[]] = Signal()
        self.per_key: dict[int, int] = {}

    # --- Journal --------------------------------------------------------------------------------------------

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[str]:
        if self.damage.refusal:
            self.damage.check()
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done = partial(self._appended, future, invocation, then)
        if idempotency_key or invocation.ordering_key:
            self.states.announce([invocation.function_id])
            request: WriteRequest = CallRequest(lambda db: self._append(db, invocation, idempotency_key), done)
        else:
            rows = append_rows(invocation)
            request = WriteRequest(rows + self.states.accepted(invocation) if self.states.targets else rows, done)
        self._writer.submit(request)
        return future

    def start(
        self,
        invocation: Invocation,
        started_at: float,
        *,
        begun: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        key, number = invocation.key, self._writer.number
        done = None if then is None else (lambda request: None if request.error else then())
        earlier = self._starts.get(key)
        if earlier is not None and earlier.number == number:  # the begin is in the same batch as the dispatch
            earlier.row[-2], earlier.done = begun, done
            return
        request = self._starts[key] = _Start([invocation.attempt, started_at, begun, key], done, number)
        if self.states.targets and earlier is None:
            request.rows += self.states.started(invocation, started_at)
        self._writer.submit(request)

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        start = self._starts.pop(settlement.invocation.key, None)
        if start is not None and start.number == self._writer.number:
            start.rows = start.rows[1:]  # the start is in the same batch as the end, which overwrites its row

        def done(request: WriteRequest) -> None:
            if isinstance(request.error, PageDamaged):
                return self.damage.note_end(request.error)
            if request.error is not None:
                raise request.error  # the schema refused a row: a bug in the engine
            if then is not None:
                then(settlement)
            if settlement.invocation.ordering_key:
                self.released()
            return None

        rows = settle_rows(settlement, self.per_key)
        if self.states.targets:
            rows += self.states.ended(settlement)
        self._writer.submit(WriteRequest(rows, done, True))

    def end_all(
        self,
        keys: Sequence[int],
        end: WaitingEnd,
        *,
        then: Callable[[Sequence[tuple[int, int]], bool], None] | None = None,
    ) -> asyncio.Future[Sequence[tuple[int, int]]]:
        future: asyncio.Future[Sequence[tuple[int, int]]] = asyncio.get_running_loop().create_future()

        def done(request: WriteRequest) -> None:
            ended = () if request.error else request.value  # after a failed commit, the value is still there
            if then is not None:
                then(ended, request.error is None)
            if self.states.targets:
                self.states.added()
            if ended:
                self.released()  # in case that some of them had an ordering key
            answer(future, request)

        self._writer.submit(CallRequest(lambda db: self._end_all(db, keys, end), done))
        return future

    async def release(self, invocations: Sequence[Invocation]) -> None:
        rows = [(READY, i.key) for i in invocations]
        for invocation in invocations:
            self._starts.pop(invocation.key, None)

        def write(db: sqlite3.Connection) -> None:
            self.states.insert_released(db, invocations)
            db.executemany("UPDATE invocation SET state = ? WHERE key = ? AND state = 2", rows)

        await self._writer.call(write)
        self.states.announce(invocation.function_id for invocation in invocations)

    async def recover(self) -> Recovery:
        return await self._writer.call(self._recover)

    # --- after the write ------------------------------------------------------------------------------------

    def _appended(
        self,
        future: asyncio.Future[str],
        invocation: Invocation,
        then: Callable[[Invocation, bool], None] | None,
        request: WriteRequest,
    ) -> None:
        """Complete an append that the writer has stored or refused: call ``then``, and resolve the future.

        The future gets the request id, or the error. On entry, ``request.value`` is None, or what ``_append`` returned.
        """
        if request.error is not None:
            self.damage.note_append(request.error)
        if isinstance(request.value, Invocation):
            invocation, request.value = request.value, None
        request.value = request.value or invocation.request_id
        if then is not None:
            then(invocation, request.error is None and request.value == invocation.request_id)
        answer(future, request)

    # --- in the writer's thread -----------------------------------------------------------------------------

    def store(self, db: WritingConnection, invocations: Sequence[Invocation]) -> frozenset[int]:
        """Store invocations in their order. Return the keys of those that are held."""
        held = insert_all(db, invocations, self.per_key)
        self.states.insert_accepted(db, invocations)
        return held

    def _append(self, db: WritingConnection, invocation: Invocation, idempotency_key: str) -> str | Invocation | None:
        """Store the invocation with its idempotency key, if it has one.

        Return None, or the invocation if it is held. For a key in use, store nothing and return the id of the earlier
        invocation. Raises IdempotencyConflict if the earlier invocation has another payload.
        """
        earlier = self.claim(db, invocation, idempotency_key) if idempotency_key else None
        if earlier is not None:
            return earlier
        return replace(invocation, held=True) if self.store(db, [invocation]) else None

    def claim(self, db: WritingConnection, invocation: Invocation, idempotency_key: str) -> str | None:
        """Do what ``claim`` does, and return the request id in place of the key."""
        earlier = claim(db, invocation, idempotency_key, self._idempotency_retention)
        return None if earlier is None else self._identity.request_id(earlier)

    def _end_all(self, db: WritingConnection, keys: Sequence[int], end: WaitingEnd) -> Sequence[tuple[int, int]]:
        ended = end_all(db, keys, end, self.per_key)
        self.states.insert_ends(db, [key for key, _ in ended], end.state, end.outcome)
        return ended

    def _recover(self, db: sqlite3.Connection) -> Recovery:
        rows = db.execute(
            f"SELECT {RUNNABLE}, begun FROM invocation INDEXED BY running LEFT JOIN payload USING (key)"
            f" WHERE state = 2 AND {POISONED}"
        ).fetchall()
        self.states.insert_revived(db)
        revived = db.execute(f"{REVIVE} WHERE state = 2 AND NOT ({POISONED})").rowcount
        return Recovery(
            backlog={f: (rows, size) for f, rows, size in db.execute(_BACKLOG)},
            waiting=frozenset(_functions_with_ready_rows(db)),
            poisoned=tuple(to_crashed(row, self._identity) for row in rows),
            next_due=next_due(db),
            revived=revived,
        )


class _Start(WriteRequest):
    """Record of the dispatch or begin of an attempt. It can be changed while its batch is being gathered."""

    __slots__ = ("number", "row")

    def __init__(self, row: list[Any], done: Callable[[WriteRequest], None] | None, number: int) -> None:
        super().__init__(((Statement.START, row),), done, True)
        self.row = row
        self.number = number  #: number of the batch


def _functions_with_ready_rows(db: sqlite3.Connection) -> list[int]:
    """Return the ids of functions with ready invocations, by one index lookup for each function instead of a scan."""
    return [
        row[0]
        for row in db.execute(
            "WITH RECURSIVE f (id) AS (SELECT min(function_id) FROM invocation WHERE state = 0"
            " UNION ALL SELECT (SELECT min(function_id) FROM invocation WHERE state = 0 AND function_id > f.id)"
            " FROM f WHERE f.id IS NOT NULL) SELECT id FROM f WHERE id IS NOT NULL"
        )
    ]
