"""Double of the journal: invocations in memory. Also returns pages of waiting ones to the scheduler (``Window``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import accumulate

from msgspec.structs import replace

from engine.errors import IdempotencyConflict
from engine.model import Attempt, ContentKey, Invocation, Outcome, State
from engine.model.retry import HISTORY
from engine.model.signal import Signal
from engine.protocols import Page, Recovery, Settlement, WaitingEnd
from engine.testing.rows import Row, poisoned
from engine.testing.tables import MemoryTables
from engine.testing.writes import MemoryWrites, at_the_next_turn


class MemoryJournal:
    """Journal in memory, which also returns pages of waiting invocations to the scheduler (``Window``)."""

    def __init__(self, tables: MemoryTables, writes: MemoryWrites, idempotency_retention: float) -> None:
        self._tables, self._writes = tables, writes
        self._retention = idempotency_retention
        self.released: Signal[[]] = Signal()

    # --- Journal --------------------------------------------------------------------------------------------

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[str]:
        self._writes.check()
        error: Exception | None = None
        request_id = invocation.request_id
        try:
            request_id = self.store(invocation, idempotency_key)
        except IdempotencyConflict as conflict:
            error = conflict
        stored = error is None and request_id == invocation.request_id
        one = self.as_stored(invocation) if stored else invocation
        callback = None if then is None else (lambda: then(one, stored))
        return at_the_next_turn(request_id, error, callback)

    def start(
        self,
        invocation: Invocation,
        started_at: float,
        *,
        begun: bool = False,
        then: Callable[[], None] | None = None,
    ) -> None:
        self._writes.keep(lambda: self._start(invocation, started_at, begun, then))

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        self._writes.keep(lambda: self._settle(settlement, then))

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> asyncio.Future[tuple[int, int] | None]:
        self._writes.check()
        found = self._end_waiting(key, WaitingEnd(state=State.FAIL, outcome=outcome))
        callback = None if then is None else (lambda: then(key, found, True))
        return at_the_next_turn(found, None, callback)

    def end_all(
        self,
        keys: Sequence[int],
        end: WaitingEnd,
        *,
        then: Callable[[Sequence[tuple[int, int]], bool], None] | None = None,
    ) -> asyncio.Future[Sequence[tuple[int, int]]]:
        self._writes.check()
        ends = [(key, self._end_waiting(key, end)) for key in keys]
        found = [(key, end[1]) for key, end in ends if end is not None]
        callback = None if then is None else (lambda: then(found, True))
        return at_the_next_turn(found, None, callback)

    async def release(self, invocations: Sequence[Invocation]) -> None:
        self._writes.check()
        for invocation in invocations:
            row = self._tables.rows[invocation.key]
            if row.state is State.RUNNING:
                row.state = State.WAIT
                row.invocation = replace(row.invocation, delayed=False)
                self._tables.states.note(row.invocation, State.WAIT)

    async def recover(self) -> Recovery:
        self._writes.check()
        dropped, revived = list[Invocation](), 0
        rows = sorted(self._tables.rows.values(), key=lambda row: row.invocation.key)
        for row in rows:
            if row.state is not State.RUNNING:
                continue
            crashed = row.crashed()
            if poisoned(crashed):
                dropped.append(crashed)
            else:
                row.invocation, row.state = replace(crashed, delayed=False), State.WAIT
                self._tables.states.note(row.invocation, State.WAIT)
                revived += 1
        return Recovery(
            backlog=self._backlog(),
            waiting=frozenset(row.invocation.function_id for row in rows if row.ready),
            poisoned=tuple(dropped),
            next_due=self._next_due(),
            revived=revived,
        )

    # --- Window ---------------------------------------------------------------------------------------------

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        self._writes.check()
        waiting = sorted(
            (row.invocation for row in self._tables.rows.values() if row.ready), key=lambda one: one.rank_key
        )
        behind = [one for one in waiting if one.function_id == function_id and one.rank_key > after]
        found = _up_to(size, behind[:rows])
        read = sum(len(invocation.payload) for invocation in found)
        return Page(invocations=found, complete=len(found) < rows and read < size)

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        self._writes.check()
        delayed = sorted(
            (row.invocation for row in self._tables.rows.values() if row.delayed and row.invocation.due_at <= now),
            key=lambda invocation: invocation.due_at,
        )
        due = tuple(replace(invocation, delayed=False) for invocation in _up_to(size, delayed[:rows]))
        for invocation in due:
            self._tables.rows[invocation.key].invocation = invocation
        return due, self._next_due()

    # --- inside ---------------------------------------------------------------------------------------------

    def store(self, invocation: Invocation, idempotency_key: str) -> str:
        """Store an invocation and return its request id.

        If the idempotency key was used before with the same payload, return the earlier request id instead. Raises
        IdempotencyConflict if the earlier invocation has another payload.
        """
        if earlier := self.earlier(invocation, idempotency_key):
            return earlier
        if idempotency_key:
            name, end = (invocation.function_id, idempotency_key), invocation.accepted_on_clock + self._retention
            self._tables.idempotency_keys[name] = invocation.request_id, _compared(invocation, idempotency_key), end
        self._tables.append(invocation)
        return invocation.request_id

    def earlier(self, invocation: Invocation, idempotency_key: str) -> str:
        """Return the id of the request that used the key, or an empty text. Raises IdempotencyConflict as ``store``."""
        found = self._tables.idempotency_keys.get((invocation.function_id, idempotency_key))
        if found is None or found[2] <= invocation.expires_others_at:
            return ""
        if found[1] != _compared(invocation, idempotency_key):
            raise IdempotencyConflict(idempotency_key)
        return found[0]

    def _end_waiting(self, key: int, end: WaitingEnd) -> tuple[int, int] | None:
        """End a waiting invocation. Return its function id and payload size, or None if it does not wait."""
        row = self._tables.rows.get(key)
        if row is None or row.state is not State.WAIT:
            return None
        row.state, row.ended_at = end.state, end.outcome.ended_at
        row.code, row.message = end.outcome.code, end.outcome.message
        self._note_end(row, end.state, end.outcome)
        if end.deliver_to is not None:
            self._tables.add_delivery(row.invocation, end.state, end.deliver_to, end.outcome.ended_at)
        self._tables.release_successor(row.invocation, end.outcome.ended_at)
        if row.invocation.ordering_key:
            asyncio.get_running_loop().call_soon(self.released)
        return row.invocation.function_id, len(row.invocation.payload)

    def as_stored(self, invocation: Invocation) -> Invocation:
        """Return an invocation with ``held`` as it is stored."""
        return self._tables.rows[invocation.key].invocation

    def _start(self, invocation: Invocation, started_at: float, begun: bool, then: Callable[[], None] | None) -> None:
        row = self._tables.rows[invocation.key]
        if row.state is State.WAIT:
            self._tables.states.note(invocation, State.RUNNING, started_at)
        row.state, row.started_at, row.begun = State.RUNNING, started_at, begun
        if then is not None:
            asyncio.get_running_loop().call_soon(then)

    def _settle(self, settlement: Settlement, then: Callable[[Settlement], None] | None) -> None:
        before, outcome = settlement.invocation, settlement.outcome
        row = self._tables.rows[before.key]
        row.state, row.code, row.message = settlement.state, outcome.code, outcome.message
        self._note_end(row, settlement.state, outcome)
        if settlement.retry is not None:
            row.invocation = settlement.retry
        else:
            row.ended_at = outcome.ended_at
            row.started_at = outcome.started_at if settlement.ran else None
            self._tables.release_successor(before, outcome.ended_at)
            if before.ordering_key:
                asyncio.get_running_loop().call_soon(self.released)
        if outcome.result or outcome.log or before.attempt > 1:
            row.result, row.log = outcome.result, outcome.log
        if settlement.in_history:
            row.attempts[before.attempt] = _attempt(settlement)
            row.attempts.pop(before.attempt - HISTORY, None)
        if settlement.deliver_to is not None:
            self._tables.add_delivery(before, settlement.state, settlement.deliver_to, outcome.ended_at)
        if then is not None:
            asyncio.get_running_loop().call_soon(then, settlement)

    def _note_end(self, row: Row, state: State, outcome: Outcome) -> None:
        self._tables.states.note(row.invocation, state, outcome.ended_at, outcome.code, outcome.message)

    def _backlog(self) -> dict[int, tuple[int, int]]:
        backlog: dict[int, tuple[int, int]] = {}
        for row in self._tables.rows.values():
            function_id, size = row.invocation.function_id, len(row.invocation.payload)
            if row.state.final:
                function_id, size = 0, row.size
            elif row.attempts_size:
                rows, used = backlog.get(0, (0, 0))
                backlog[0] = rows, used + row.attempts_size
            rows, used = backlog.get(function_id, (0, 0))
            backlog[function_id] = rows + 1, used + size
        return backlog

    def _next_due(self) -> float | None:
        return min((row.invocation.due_at for row in self._tables.rows.values() if row.delayed), default=None)


def _up_to(size: int, invocations: Sequence[Invocation]) -> tuple[Invocation, ...]:
    """Return the first invocations, up to the one that brings their payloads to ``size`` bytes in total."""
    before = accumulate((len(one.payload) for one in invocations), initial=0)
    return tuple(one for one, read in zip(invocations, before, strict=False) if read < size)


def _attempt(settlement: Settlement) -> Attempt:
    outcome = settlement.outcome
    return Attempt(
        attempt=settlement.invocation.attempt,
        started_at=outcome.started_at,
        ended_at=outcome.ended_at,
        code=outcome.code,
        message=outcome.message,
        log=outcome.log if settlement.retry is not None else b"",
        decision=settlement.decision,
        progress=outcome.progress,
        note=outcome.note,
        instance=outcome.instance,
    )


def _compared(invocation: Invocation, idempotency_key: str) -> bytes:
    return idempotency_key.content if isinstance(idempotency_key, ContentKey) else invocation.payload
