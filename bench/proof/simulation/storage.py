"""Simulated storage: the protocols of ``engine.protocols.storage`` over tables that survive the simulated process.

The promises of that module hold, and nothing beyond them. The tables tell the witness of the simulation about each
change, when it is on disk.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
from msgspec.structs import replace

from bench.proof.simulation.catalog import SimulatedCatalog, SimulatedResources, SimulatedStore
from bench.proof.simulation.records import SimulatedOutbox, SimulatedRecords
from bench.proof.simulation.storage_witness import Witness
from bench.proof.simulation.tables import Tables
from bench.proof.simulation.writes import Writes, answer_of
from engine.errors import CursorMoved, IdempotencyConflict, Unsupported
from engine.model import Invocation, Outcome, State
from engine.model.identity import Identity
from engine.model.signal import Signal
from engine.protocols import (
    BatchWritten,
    CopySteps,
    CursorMove,
    Page,
    Recovery,
    Settlement,
    StorageStatistics,
    WaitingEnd,
    divide,
)
from engine.testing.rows import Row, move_problem, poisoned
from engine.testing.status_log import MemoryStates, MemoryStatusLog
from engine.testing.store import MemoryStore
from engine.testing.writes import MemoryWrites


class SimulatedCluster:
    slot = 0

    def owns(self, name: str) -> bool:
        return True

    async def lost(self) -> None:
        await asyncio.get_running_loop().create_future()


class SimulatedStorage:
    """Storage of one simulated process."""

    def __init__(
        self,
        tables: Tables,
        witness: Witness,
        random: Random,
        *,
        node: int,
        retention: float,
        writes: Any = None,
    ) -> None:
        self._tables, self.writes = tables, writes or Writes(random)
        self.identity = Identity(node, tables.last_key)
        self.cluster = SimulatedCluster()
        self.journal = SimulatedJournal(tables, self.writes, witness, self.identity, retention)
        self.window = self.journal
        self.records = SimulatedRecords(tables, self.writes, witness, random)
        self.outbox = SimulatedOutbox(tables, self.writes, witness)
        self.status_log = MemoryStatusLog(MemoryStates(), MemoryWrites(), lambda plugin: MemoryStore())
        self.catalog = SimulatedCatalog(tables, self.writes)
        self.resources = SimulatedResources(tables, self.writes)
        self.cursors = SimulatedCursors(tables, self.writes, witness, self.journal)

    def use(self, identity: Identity) -> None:
        """Draw keys from the identity of another storage."""
        self.identity = self.journal._identity = identity

    def store(self, plugin: str) -> SimulatedStore:
        return SimulatedStore(self._tables, self.writes, plugin)

    @property
    def broken(self) -> bool:
        return self.writes.broken

    async def copy_to(self, folder: Path, on_progress: Callable[[int, int], None]) -> CopySteps:
        raise Unsupported("copy of its storage")

    async def damaged(self) -> str:
        await anyio.sleep_forever()
        raise AssertionError

    def end(self) -> None:
        """Apply the writes that survive the end of the process although nobody was told so."""
        self.writes.crash()

    def statistics(self) -> StorageStatistics:
        return self.writes.statistics()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SimulatedStorage]:
        """Keep the storage open until the block ends. The block ends with JournalBroken after ``fail(broken=True)``."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.writes.end_when_broken)
            try:
                yield self
            finally:
                with anyio.CancelScope(shield=True):
                    await self.writes.close()
                tasks.cancel_scope.cancel()


class SimulatedJournal:
    def __init__(self, tables: Tables, writes: Writes, witness: Witness, identity: Identity, retention: float) -> None:
        self._tables, self._writes, self._witness = tables, writes, witness
        self._identity, self._retention = identity, retention
        self._held: dict[int, bool] = {}  #: invocations that were held when they were stored
        self.released: Signal[[]] = Signal()

    def append(
        self,
        invocation: Invocation,
        *,
        idempotency_key: str = "",
        then: Callable[[Invocation, bool], None] | None = None,
    ) -> asyncio.Future[str]:
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def done(value: str | None, error: Exception | None) -> None:
            new = value == invocation.request_id
            one = self.note_available(invocation) if new else invocation
            if then is not None:
                then(one, new)
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
            self._tables.start(invocation, started_at, begun=begun)
            self._witness.started(invocation)

        def done(value: Any, error: Exception | None) -> None:
            _raise(value, error)
            if then is not None:
                then()

        self._writes.keep(apply, done)

    def settle(self, settlement: Settlement, *, then: Callable[[Settlement], None] | None = None) -> None:
        def apply() -> None:
            self._tables.settle(settlement)
            self._witness.settled(settlement)

        def done(value: Any, error: Exception | None) -> None:
            _raise(value, error)
            if then is not None:
                then(settlement)
            if settlement.invocation.ordering_key:
                self.released()

        self._writes.keep(apply, done)

    def cancel(
        self, key: int, outcome: Outcome, *, then: Callable[[int, tuple[int, int] | None, bool], None] | None = None
    ) -> asyncio.Future[tuple[int, int] | None]:
        future: asyncio.Future[tuple[int, int] | None] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def done(value: tuple[int, int] | None, error: Exception | None) -> None:
            if value is not None:
                self.released()
            if then is not None:
                then(key, value, error is None)
            answer(value, error)

        self._writes.submit(lambda: self._end_waiting(key, WaitingEnd(state=State.FAIL, outcome=outcome)), done)
        return future

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

    async def ready(self, function_id: int, after: tuple[float, int], rows: int, size: int) -> Page:
        def apply() -> Page:
            line = self._tables.ready.get(function_id, [])
            found = [self._tables.rows[key].invocation for _, key in _behind(line, after, rows)]
            return Page(invocations=tuple(found), complete=len(found) < rows)

        return await self._writes.call(apply)

    async def promote(self, now: float, rows: int, size: int) -> tuple[tuple[Invocation, ...], float | None]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def apply() -> tuple[tuple[Invocation, ...], float | None]:
            due = [key for due_at, key in self._tables.delayed[:rows] if due_at <= now]
            ready = tuple(self._tables.promote(key) for key in due)
            return ready, self._tables.delayed[0][0] if self._tables.delayed else None

        def done(value: Any, error: Exception | None) -> None:
            for invocation in value[0] if error is None else ():
                self._witness.available(invocation)
            answer(value, error)

        self._writes.submit(apply, done)
        result: tuple[tuple[Invocation, ...], float | None] = await future
        return result

    # --- inside ---------------------------------------------------------------------------------------------

    def insert(self, invocation: Invocation, idempotency_key: str) -> str:
        """Store an invocation and return its request id, or return the id of an earlier one with the same key."""
        if idempotency_key:
            earlier = self._tables.claim(invocation, idempotency_key, self._retention)
            if earlier is not None:
                return self._identity.request_id(earlier)
        self._tables.append(invocation)
        if self._tables.rows[invocation.key].invocation.held:
            self._held[invocation.key] = True
        self._witness.stored(invocation, idempotency_key)
        return invocation.request_id

    def note_available(self, invocation: Invocation) -> Invocation:
        """Tell the witness of a stored invocation that may start. Return the invocation as it was stored."""
        held = self._held.pop(invocation.key, False)
        if not invocation.delayed and not held:
            self._witness.available(invocation)
        return replace(invocation, held=held)

    def _end_waiting(self, key: int, end: WaitingEnd) -> tuple[int, int] | None:
        row = self._tables.rows.get(key)
        if row is None or row.state is not State.WAIT:
            return None
        self._end(row, end.state, end.outcome)
        if end.deliver_to is not None:
            self._tables.add_delivery(row, end.deliver_to, end.outcome.ended_at)
        return row.invocation.function_id, row.payload_size

    def _end(self, row: Row, state: State, outcome: Outcome) -> None:
        self._tables.cancel(row, state, outcome.code, outcome.message, outcome.ended_at)
        self._witness.ended(row)

    def _recover(self) -> Recovery:
        tables, dropped, revived = self._tables, list[Invocation](), 0
        for key in list(tables.running):
            crashed = tables.rows[key].crashed()
            if poisoned(crashed):
                dropped.append(crashed)
            else:
                tables.revive(key, crashed=True)
                revived += 1
        for line in tables.ready.values():
            for _, key in line:
                self._witness.available(tables.rows[key].invocation)
        return Recovery(
            backlog={function_id: sums for function_id, sums in tables.tally.items() if sums[0]},
            waiting=frozenset(function_id for function_id, line in tables.ready.items() if line),
            poisoned=tuple(dropped),
            next_due=tables.delayed[0][0] if tables.delayed else None,
            revived=revived,
        )


class SimulatedCursors:
    def __init__(self, tables: Tables, writes: Writes, witness: Witness, journal: SimulatedJournal) -> None:
        self._tables, self._writes, self._witness, self._journal = tables, writes, witness, journal

    async def read(self, trigger_id: str) -> Mapping[str, bytes]:
        return await self._writes.call(lambda: dict(self._tables.cursors.get(trigger_id, {})))

    def append(
        self,
        requests: Sequence[tuple[Invocation, str]],
        move: CursorMove | None = None,
        *,
        then: BatchWritten | None = None,
    ) -> asyncio.Future[Sequence[str]]:
        future: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()
        answer = answer_of(future)

        def apply() -> list[str]:
            if move is not None:
                self._move(move)
            return [self._insert(*request) for request in requests]

        def done(value: list[str] | None, error: Exception | None) -> None:
            ids = value if value is not None else [""] * len(requests)
            stored, others = divide(requests, ids)
            stored = [self._journal.note_available(one) for one in stored]
            if then is not None:
                then(stored, others)
            answer(value, error)

        self._writes.submit(apply, done)
        return future

    def _insert(self, invocation: Invocation, idempotency_key: str) -> str:
        try:
            return self._journal.insert(invocation, idempotency_key)
        except IdempotencyConflict:
            return ""

    def _move(self, move: CursorMove) -> None:
        row = self._tables.resources.get(("trigger", move.owner, move.trigger_id))
        stored = self._tables.cursors.get(move.trigger_id, {})
        if problem := move_problem(row, stored, move):
            raise CursorMoved(move.trigger_id, problem)
        self._tables.cursors[move.trigger_id] = {**stored, **move.positions}


def _behind(line: list[tuple[float, int]], after: tuple[float, int], rows: int) -> list[tuple[float, int]]:
    index = bisect_right(line, after)
    return line[index : index + rows]


def _raise(value: Any, error: Exception | None) -> None:
    if error is not None:
        raise error
