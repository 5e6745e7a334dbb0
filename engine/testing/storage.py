"""Doubles of the storage protocols in memory. They give all guarantees of the storage on disk except durability.

Writes take effect at once. Their futures are resolved and their callbacks called at the next turn of the event loop. To
simulate a restart of the engine, call ``recover`` on the same storage.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from engine.errors import IdempotencyConflict
from engine.model import Attempt, DestinationSpec, Invocation, Outcome, PendingDelivery, Record, State
from engine.model.identity import Identity, key_at
from engine.model.retry import HISTORY, MAX_CRASHES
from engine.protocols import Discarded, Page, Purged, Recovery, Selection, Settlement
from engine.testing.catalog import MemoryCatalogStore
from engine.testing.outbox import MemoryOutbox


class Row(Struct, kw_only=True):
    """Stored invocation with its state, result and attempts."""

    invocation: Invocation
    state: State = State.WAIT
    started_at: float | None = None
    ended_at: float | None = None
    code: int = 0
    message: str = ""
    result: bytes = b""
    log: bytes = b""
    attempts: dict[int, Attempt] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return self.state is State.WAIT and not self.invocation.delayed

    @property
    def delayed(self) -> bool:
        return self.state is State.WAIT and self.invocation.delayed

    @property
    def size(self) -> int:
        return len(self.invocation.payload) + len(self.result) + len(self.log)


class MemoryStorage:
    """Storage in memory: journal, window, records, outbox and catalog, over the same invocations and deliveries."""

    def __init__(self, *, node: int = 1, idempotency_retention: float = 86_400.0) -> None:
        self.identity = Identity(node)
        self.rows: dict[int, Row] = {}
        self.deliveries: dict[int, PendingDelivery] = {}
        self.last_delivery_id = 0
        self.journal = MemoryJournal(self, idempotency_retention)
        self.records = MemoryRecords(self)
        self.outbox = MemoryOutbox(self.deliveries, self._append)
        self.catalog = MemoryCatalogStore()

    def add_delivery(self, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float) -> None:
        self.last_delivery_id += 1
        self.deliveries[self.last_delivery_id] = PendingDelivery(
            delivery_id=self.last_delivery_id,
            key=invocation.key,
            function_id=invocation.function_id,
            condition="success" if state is State.SUCCESS else "failure",
            destination=spec,
            due_at=due_at,
        )

    def _append(self, invocation: Invocation) -> None:
        self.rows[invocation.key] = Row(invocation=invocation)


class MemoryJournal:
    """Journal in memory, which also returns pages of waiting invocations to the scheduler (``Window``)."""

    def __init__(self, storage: MemoryStorage, idempotency_retention: float) -> None:
        self._storage = storage
        self._retention = idempotency_retention
        self._idempotency_keys: dict[tuple[int, str], tuple[str, bytes, float]] = {}

    # --- Journal --------------------------------------------------------------------------------------------

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[str]:
        error: Exception | None = None
        request_id = invocation.request_id
        try:
            request_id = self.store(invocation, idempotency_key)
        except IdempotencyConflict as conflict:
            error = conflict
        stored = error is None and request_id == invocation.request_id
        callback = None if then is None else (lambda: then(invocation, stored))
        return at_the_next_turn(request_id, error, callback)

    def start(self, invocation: Invocation, started_at: float) -> None:
        row = self._storage.rows[invocation.key]
        row.state, row.started_at = State.RUNNING, started_at

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        before, outcome = settlement.invocation, settlement.outcome
        row = self._storage.rows[before.key]
        row.state, row.code, row.message = settlement.state, outcome.code, outcome.message
        if settlement.retry is not None:
            row.invocation = settlement.retry
        else:
            row.ended_at = outcome.ended_at
            row.started_at = outcome.started_at if settlement.ran else None
        if outcome.result or outcome.log or before.attempt > 1:
            row.result, row.log = outcome.result, outcome.log
        if settlement.ran and (before.attempt > 1 or not outcome.ok):
            row.attempts[before.attempt] = _attempt(before.attempt, outcome)
            row.attempts.pop(before.attempt - HISTORY, None)
        if settlement.deliver_to is not None:
            self._storage.add_delivery(before, settlement.state, settlement.deliver_to, outcome.ended_at)
        if then is not None:
            asyncio.get_running_loop().call_soon(then, settlement)

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> asyncio.Future[tuple[int, int] | None]:
        found: tuple[int, int] | None = None
        row = self._storage.rows.get(key)
        if row is not None and row.state is State.WAIT:
            row.state, row.ended_at = State.FAIL, outcome.ended_at
            row.code, row.message = outcome.code, outcome.message
            found = row.invocation.function_id, len(row.invocation.payload)
        callback = None if then is None else (lambda: then(key, found, True))
        return at_the_next_turn(found, None, callback)

    async def discard(self, function_id: int, after: tuple[float, int], rows: int, outcome: Outcome) -> Discarded:
        waiting = [row for row in self._storage.rows.values() if row.state is State.WAIT]
        found = [row for row in waiting if row.invocation.function_id == function_id][:rows]
        for row in found:
            row.state, row.ended_at = State.DISCARD, outcome.ended_at
            row.code, row.message = outcome.code, outcome.message
        size = sum(len(row.invocation.payload) for row in found)
        keys = tuple(row.invocation.key for row in found)
        return Discarded(keys=keys, size=size, reached=after if len(found) == rows else None)

    async def release(self, invocations: Sequence[Invocation]) -> None:
        for invocation in invocations:
            row = self._storage.rows[invocation.key]
            if row.state is State.RUNNING:
                row.state = State.WAIT
                row.invocation = replace(row.invocation, delayed=False)

    async def recover(self) -> Recovery:
        poisoned, revived = [], 0
        rows = sorted(self._storage.rows.values(), key=lambda row: row.invocation.key)
        for row in rows:
            if row.state is State.RUNNING and row.invocation.crash_count >= MAX_CRASHES:
                poisoned.append(row.invocation)
            elif row.state is State.RUNNING:
                row.invocation = replace(row.invocation, crash_count=row.invocation.crash_count + 1, delayed=False)
                row.state = State.WAIT
                revived += 1
        return Recovery(
            backlog=self._backlog(),
            waiting=frozenset(row.invocation.function_id for row in rows if row.ready),
            poisoned=tuple(poisoned),
            next_due=self._next_due(),
            revived=revived,
        )

    # --- Window ---------------------------------------------------------------------------------------------

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        waiting = sorted(
            (row.invocation for row in self._storage.rows.values() if row.ready), key=lambda one: one.rank_key
        )
        behind = [one for one in waiting if one.function_id == function_id and one.rank_key > after]
        found = _up_to(size, behind[:rows])
        read = sum(len(invocation.payload) for invocation in found)
        return Page(invocations=found, complete=len(found) < rows and read < size)

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        delayed = sorted(
            (row.invocation for row in self._storage.rows.values() if row.delayed and row.invocation.due_at <= now),
            key=lambda invocation: invocation.due_at,
        )
        due = tuple(replace(invocation, delayed=False) for invocation in _up_to(size, delayed[:rows]))
        for invocation in due:
            self._storage.rows[invocation.key].invocation = invocation
        return due, self._next_due()

    # --- inside ---------------------------------------------------------------------------------------------

    def store(self, invocation: Invocation, idempotency_key: str) -> str:
        """Store an invocation and return its request id.

        If the idempotency key was used before with the same payload, return the earlier request id instead. Raises
        IdempotencyConflict if the earlier invocation has another payload.
        """
        name, now = (invocation.function_id, idempotency_key), invocation.accepted_on_clock
        earlier = self._idempotency_keys.get(name) if idempotency_key else None
        if earlier is not None and earlier[2] > now:
            if earlier[1] != invocation.payload:
                raise IdempotencyConflict(idempotency_key)
            return earlier[0]
        if idempotency_key:
            self._idempotency_keys[name] = invocation.request_id, invocation.payload, now + self._retention
        self._storage.rows[invocation.key] = Row(invocation=invocation)
        return invocation.request_id

    def _backlog(self) -> dict[int, tuple[int, int]]:
        backlog: dict[int, tuple[int, int]] = {}
        for row in self._storage.rows.values():
            function_id, size = row.invocation.function_id, len(row.invocation.payload)
            if row.state.final:
                function_id, size = 0, row.size
            rows, used = backlog.get(function_id, (0, 0))
            backlog[function_id] = rows + 1, used + size
        return backlog

    def _next_due(self) -> float | None:
        return min((row.invocation.due_at for row in self._storage.rows.values() if row.delayed), default=None)


class MemoryRecords:
    def __init__(self, storage: MemoryStorage) -> None:
        self._storage = storage

    async def list(self, selection: Selection) -> tuple[Sequence[Record], int]:
        order = _newest if selection.functions else _list_order
        scanned, rows = Counter[float](), list[Row]()
        for row in sorted((row for row in self._storage.rows.values() if _spanned(row, selection)), key=order):
            scanned[part := order(row)[0]] += 1
            if _selected(row, selection) and scanned[part] <= (selection.within or math.inf):
                rows.append(row)
        page = islice(rows, selection.offset, selection.offset + selection.limit)
        return [replace(_record(row), payload=b"", result=b"", log=b"", attempts=()) for row in page], len(rows)

    async def get(self, key: int) -> Record | None:
        row = self._storage.rows.get(key)
        return None if row is None else _record(row)

    async def purge(self, now: float, *, age: float, rows: int, size: int) -> Purged:
        undelivered = {pending.key for pending in self._storage.deliveries.values() if pending.due_at is not None}
        ended = [row for _, row in sorted(self._storage.rows.items()) if row.ended_at is not None]
        kept_rows, kept_size = len(ended), sum(row.size for row in ended)
        dropped: list[str] = []
        oldest: list[float] = []
        for row in ended:
            assert row.ended_at is not None
            over = kept_rows > rows or kept_size > size
            if row.invocation.key not in undelivered and (over or row.ended_at <= now - age):
                kept_rows, kept_size = kept_rows - 1, kept_size - row.size
                dropped.append(row.invocation.request_id)
                self._drop(row.invocation.key)
            else:
                oldest.append(row.ended_at)
        next_due = min(oldest) + age if oldest else None
        return Purged(request_ids=tuple(dropped), more=False, next_due=next_due)

    def _drop(self, key: int) -> None:
        del self._storage.rows[key]
        for pending in [pending for pending in self._storage.deliveries.values() if pending.key == key]:
            del self._storage.deliveries[pending.delivery_id]


def _up_to(size: int, invocations: Sequence[Invocation]) -> tuple[Invocation, ...]:
    """Return the first invocations, up to the one that brings their payloads to ``size`` bytes in total."""
    before = accumulate((len(one.payload) for one in invocations), initial=0)
    return tuple(one for one, read in zip(invocations, before, strict=False) if read < size)


def at_the_next_turn(value: Any, error: Exception | None, callback: Callable[[], None] | None) -> asyncio.Future[Any]:
    """Call ``callback`` at the next turn of the event loop, then set ``value`` or ``error`` on the returned future."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def answer() -> None:
        if callback is not None:
            callback()
        if future.cancelled():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    loop.call_soon(answer)
    return future


def _attempt(number: int, outcome: Outcome) -> Attempt:
    return Attempt(
        attempt=number,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
        code=outcome.code,
        message=outcome.message,
    )


def _spanned(row: Row, selection: Selection) -> bool:
    key, own = row.invocation.key, row.invocation.function_id == selection.function_id
    ends = math.inf if selection.end == math.inf else key_at(selection.end)
    ends = ends if selection.below is None else min(ends, selection.below)
    return bool(own or selection.functions) and key_at(selection.begin) <= key < ends


def _selected(row: Row, selection: Selection) -> bool:
    return (
        (not selection.functions or row.invocation.function_id in selection.functions)
        and selection.version in ("", row.invocation.version)
        and selection.alias in ("", row.invocation.alias)
        and (not selection.states or row.state in selection.states)
        and (selection.keys is None or row.invocation.key in selection.keys)
    )


def _list_order(row: Row) -> tuple[float, ...]:
    """Return the sort key for a list of records: running, ready, delayed, then ended invocations, newest first."""
    invocation = row.invocation
    if row.state is State.RUNNING:
        return (0, invocation.key)
    if row.ready:
        return (1, *invocation.rank_key)
    return (2, invocation.due_at) if row.delayed else (3, -invocation.key)


def _newest(row: Row) -> tuple[float, ...]:
    return (0, -row.invocation.key)


def _record(row: Row) -> Record:
    one = row.invocation
    return Record(
        key=one.key,
        request_id=one.request_id,
        function_id=one.function_id,
        version=one.version,
        alias=one.alias,
        source=one.source,
        state=row.state,
        priority=one.priority,
        due_at=one.due_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempt=one.attempt,
        code=row.code,
        message=row.message,
        hops=one.hops,
        payload=one.payload,
        result=row.result,
        log=row.log,
        attempts=tuple(row.attempts[number] for number in sorted(row.attempts)),
    )
