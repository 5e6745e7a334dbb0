"""Journal of the double, which also returns pages of waiting invocations to the scheduler (``Window``)."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from engine.model import Invocation, State
from engine.model.retry import MAX_CRASHES, MAX_START_CRASHES
from engine.model.signal import Signal
from engine.protocols import Page, Recovery, Settlement, WaitingEnd
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites, answer_of


class MemoryJournal:
    def __init__(self, tables: MemoryTables, writes: MemoryWrites, idempotency_retention: float) -> None:
        self._tables, self._writes = tables, writes
        self._retention = idempotency_retention
        self.released: Signal[[]] = Signal()
        self.per_key = tables.per_key

    # --- Journal --------------------------------------------------------------------------------------------

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def done(value: Invocation | str | None, error: Exception | None) -> None:
            if isinstance(value, Invocation):
                self.note_available(value)
                if then is not None:
                    then(value, True)
                answer(value.request_id, None)
            else:
                if then is not None:
                    then(invocation, False)
                answer(value, error)

        self._writes.submit(lambda: self.insert(invocation, idempotency_key), done)
        return future

    def start(
        self,
        invocation: Invocation,
        started_at: float,
        *,
        begun: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        def apply() -> None:
            before = self._tables.rows[invocation.key].state
            self._tables.start(invocation, started_at, begun=begun)
            self._tables.observer.started(invocation, before, begun=begun)

        def done(value: Any, error: Exception | None) -> None:
            if error is not None:
                raise error
            if then is not None:
                then()

        self._writes.keep(apply, done)

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        def apply() -> None:
            self._tables.settle(settlement)
            self._tables.observer.settled(settlement)

        def done(value: Any, error: Exception | None) -> None:
            if error is not None:
                raise error
            if then is not None:
                then(settlement)
            if settlement.invocation.ordering_key:
                self.released()

        self._writes.keep(apply, done)

    def end_all(
        self,
        keys: Sequence[int],
        end: WaitingEnd,
        *,
        then: Callable[[Sequence[tuple[int, int]], bool], None] | None = None,
    ) -> asyncio.Future[Sequence[tuple[int, int]]]:
        future: asyncio.Future[Sequence[tuple[int, int]]] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def apply() -> Sequence[tuple[int, int]]:
            ends = [(key, self._end_waiting(key, end)) for key in keys]
            return [(key, end[1]) for key, end in ends if end is not None]

        def done(value: Sequence[tuple[int, int]] | None, error: Exception | None) -> None:
            if then is not None:
                then(value or (), error is None)
            if value:
                self.released()
            answer(value, error)

        self._writes.submit(apply, done)
        return future

    async def release(self, invocations: Sequence[Invocation]) -> None:
        def apply() -> None:
            for invocation in invocations:
                if self._tables.rows[invocation.key].state is State.RUNNING:
                    self._tables.revive(invocation.key, crashed=False)

        await self._writes.call(apply)

    async def recover(self) -> Recovery:
        return await self._writes.call(self._recover)

    # --- Window ---------------------------------------------------------------------------------------------

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        def apply() -> Page:
            line = self._tables.ready.get(function_id, [])
            begin = bisect_right(line, after)
            page = self._up_to(size, line[begin : begin + rows])
            read = sum(len(invocation.payload) for invocation in page)
            return Page(invocations=page, complete=len(page) < rows and read < size)

        return await self._writes.call(apply)

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        def apply() -> tuple[tuple[Invocation, ...], float | None]:
            due = [entry for entry in self._tables.delayed[:rows] if entry[0] <= now]
            ready = tuple(self._tables.promote(invocation.key) for invocation in self._up_to(size, due))
            return ready, self._next_due()

        promoted, next_due = await self._writes.call(apply)
        for invocation in promoted:
            self._tables.observer.available(invocation)
        return promoted, next_due

    # --- inside ---------------------------------------------------------------------------------------------

    def insert(self, invocation: Invocation, idempotency_key: str) -> Invocation | str:
        """Store an invocation and return it as stored, or return the request id of an earlier one with the same key.

        Raises IdempotencyConflict if the earlier invocation has another payload.
        """
        if idempotency_key:
            if earlier := self._tables.earlier(invocation, idempotency_key):
                return earlier
            self._tables.claim(invocation, idempotency_key, self._retention)
        stored = self._tables.append(invocation)
        self._tables.observer.stored(invocation, idempotency_key)
        return stored

    def note_available(self, stored: Invocation) -> None:
        """Tell the observer of a stored invocation if it may start."""
        if not stored.delayed and not stored.held:
            self._tables.observer.available(stored)

    def _end_waiting(self, key: int, end: WaitingEnd) -> tuple[int, int] | None:
        """End a waiting invocation. Return its function id and payload size, or None if it does not wait."""
        row = self._tables.rows.get(key)
        if row is None or row.state is not State.WAIT:
            return None
        self._tables.end(row, end.state, end.outcome)
        self._tables.observer.ended(row)
        if end.deliver_to is not None:
            self._tables.add_delivery(row.invocation, end.state, end.deliver_to, end.outcome.ended_at)
        return row.invocation.function_id, row.payload_size

    def _recover(self) -> Recovery:
        tables, poisoned, revived = self._tables, list[Invocation](), 0
        for key in sorted(tables.running):
            crashed = tables.rows[key].crashed()
            if crashed.crash_count > MAX_CRASHES or crashed.start_crashes > MAX_START_CRASHES:
                poisoned.append(crashed)
            else:
                tables.revive(key, crashed=True)
                revived += 1
        for line in tables.ready.values():
            for _, key in line:
                tables.observer.available(tables.rows[key].invocation)
        return Recovery(
            backlog=self._backlog(),
            waiting=frozenset(function_id for function_id, line in tables.ready.items() if line),
            poisoned=tuple(poisoned),
            next_due=self._next_due(),
            revived=revived,
        )

    def _backlog(self) -> dict[int, tuple[int, int]]:
        tables = self._tables
        size = tables.ended_size + sum(row.attempts_size for row in tables.rows.values() if not row.state.final)
        unended = {function_id: sums for function_id, sums in tables.tally.items() if sums[0]}
        return {**unended, 0: (len(tables.ended), size)} if tables.ended or size else unended

    def _next_due(self) -> float | None:
        return self._tables.delayed[0][0] if self._tables.delayed else None

    def _up_to(self, size: int, line: Sequence[tuple[float, int]]) -> tuple[Invocation, ...]:
        """Return the first invocations, up to the one that brings their payloads to ``size`` bytes in total."""
        invocations = [self._tables.rows[key].invocation for _, key in line]
        before = accumulate((len(invocation.payload) for invocation in invocations), initial=0)
        return tuple(invocation for invocation, read in zip(invocations, before, strict=False) if read < size)
