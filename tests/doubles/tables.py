"""Tables of a storage in memory, which its parts share.

Rows are indexed as a storage on disk needs them, so that simulations with many rows stay fast.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import IdempotencyConflict
from engine.model import (
    AsyncSettings,
    Attempt,
    ContentKey,
    DestinationSpec,
    Function,
    Invocation,
    Outcome,
    PendingDelivery,
    State,
)
from engine.model.retry import HISTORY
from engine.protocols import Settlement, StoredResource
from tests.doubles.observer import Observer
from tests.doubles.rows import Row

ResourceKey = tuple[str, str, str]  #: kind, owner and id


class Violated(Exception):
    """Write that breaks a rule of the storage, such as a second end of an invocation."""


class UsedKey(Struct, frozen=True, kw_only=True):
    """Use of an idempotency key."""

    key: int
    request_id: str
    content: bytes
    expires_at: float


class MemoryTables:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.ready: dict[int, list[tuple[float, int]]] = {}  #: rank and key, by function
        self.delayed: list[tuple[float, int]] = []  #: due time and key
        self.running: dict[int, None] = {}
        self.ended: dict[int, Row] = {}
        self.ended_size = 0  #: bytes of payloads, results and logs of ended rows
        self.tally: dict[int, tuple[int, int]] = {}  #: unended rows and bytes by function
        self.idempotency: dict[tuple[int, str], UsedKey] = {}
        self.deliveries: dict[int, PendingDelivery] = {}
        self.due: dict[DestinationSpec, list[tuple[float, int]]] = {}
        self.undelivered: Counter[int] = Counter()  #: pending deliveries by key of the invocation
        self.given_up: dict[int, PendingDelivery] = {}
        self.functions: dict[tuple[int, str], Function] = {}
        self.settings: dict[tuple[int, str], AsyncSettings] = {}
        self.resources: dict[ResourceKey, StoredResource] = {}
        self.cursors: dict[str, dict[str, bytes]] = {}
        self.stores: dict[tuple[str, str], dict[str, bytes]] = {}  #: rows of plugins by plugin and table
        self.observer = Observer()
        self.last_key = self.last_function_id = 0
        self._last_delivery_id = 0
        self.per_key: dict[int, int] = {}
        self._unended: dict[tuple[int, str], dict[int, None]] = {}  #: keys of rows by function and ordering key
        self._expiries: list[tuple[float, int, str]] = []  #: heap of expiries of idempotency keys

    # --- invocations ----------------------------------------------------------------------------------------

    def append(self, invocation: Invocation) -> Invocation:
        """Store an invocation. Return it with ``held`` set if others of its ordering key must end before."""
        if invocation.key in self.rows:
            raise Violated(f"the key {invocation.key} was used twice")
        self.last_key = max(self.last_key, invocation.key)
        if invocation.ordering_key:
            others = self.unended(invocation)
            full = len(others) >= self.per_key.get(invocation.function_id, 1)
            invocation = replace(invocation, held=full or any(row.held for row in others))
            name = invocation.function_id, invocation.ordering_key
            self._unended.setdefault(name, {})[invocation.key] = None
        row = self.rows[invocation.key] = Row(invocation=invocation)
        self._count(row, 1)
        self._wait(row)
        return invocation

    def earlier(self, invocation: Invocation, idempotency_key: str) -> str:
        """Return the id of the request that used the key, or an empty text.

        Raises IdempotencyConflict if that request has another payload.
        """
        used = self.idempotency.get((invocation.function_id, idempotency_key))
        if used is None or used.expires_at <= invocation.expires_others_at:
            return ""
        if used.content != _content(invocation, idempotency_key):
            raise IdempotencyConflict(idempotency_key)
        return used.request_id

    def claim(self, invocation: Invocation, idempotency_key: str, retention: float) -> None:
        """Store the use of an idempotency key."""
        name, expires_at = (invocation.function_id, idempotency_key), invocation.accepted_on_clock + retention
        self.idempotency[name] = UsedKey(
            key=invocation.key,
            request_id=invocation.request_id,
            content=_content(invocation, idempotency_key),
            expires_at=expires_at,
        )
        heappush(self._expiries, (expires_at, *name))

    def drop_expired_keys(self, now: float) -> None:
        """Drop expired idempotency keys."""
        while self._expiries and self._expiries[0][0] <= now:
            _, function_id, text = heappop(self._expiries)
            used = self.idempotency.get((function_id, text))
            if used is not None and used.expires_at <= now:
                del self.idempotency[function_id, text]

    def start(self, invocation: Invocation, started_at: float, *, begun: bool) -> None:
        row = self.rows[invocation.key]
        if row.state is State.WAIT:
            self._leave(row)
            self.running[invocation.key] = None
        row.state, row.started_at, row.begun = State.RUNNING, started_at, begun

    def settle(self, settlement: Settlement) -> None:
        before, outcome = settlement.invocation, settlement.outcome
        row = self.rows[before.key]
        if row.state.final:
            raise Violated(f"{before.key} ends as {settlement.state}, after it has ended as {row.state}")
        if outcome.result or outcome.log or before.attempt > 1:
            row.result, row.log = outcome.result, outcome.log
        if settlement.in_history:
            row.attempts[before.attempt] = _attempt(settlement)
            row.attempts.pop(before.attempt - HISTORY, None)
        if settlement.retry is not None:
            self._leave(row)
            self._note_end(row, settlement.state, outcome)
            row.invocation = settlement.retry
            self._wait(row)
        else:
            row.started_at = outcome.started_at if settlement.ran else None
            self.end(row, settlement.state, outcome)
        if settlement.deliver_to is not None:
            self.add_delivery(before, settlement.state, settlement.deliver_to, outcome.ended_at)

    def end(self, row: Row, state: State, outcome: Outcome) -> None:
        self._leave(row)
        self._note_end(row, state, outcome)
        row.ended_at = outcome.ended_at
        self.ended[row.invocation.key] = row
        self.ended_size += row.size
        self._count(row, -1)
        if row.invocation.ordering_key:
            self._release_successor(row.invocation, outcome.ended_at)

    def revive(self, key: int, *, crashed: bool) -> None:
        """Put a running invocation back to WAIT."""
        row = self.rows[key]
        self._leave(row)
        row.invocation, row.state = replace(row.crashed() if crashed else row.invocation, delayed=False), State.WAIT
        self._wait(row)

    def promote(self, key: int) -> Invocation:
        """Make a delayed invocation ready."""
        row = self.rows[key]
        self._leave(row)
        row.invocation = replace(row.invocation, delayed=False)
        self._wait(row)
        return row.invocation

    def drop(self, key: int) -> Row:
        """Remove an ended invocation, with its deliveries that were given up."""
        self.undelivered.pop(key, None)
        for delivery_id in [pending.delivery_id for pending in self.given_up.values() if pending.key == key]:
            del self.given_up[delivery_id]
        row = self.ended.pop(key)
        self.ended_size -= row.size
        return self.rows.pop(key)

    def unended(self, invocation: Invocation) -> list[Row]:
        """Return the invocations of an ordering key that have not ended."""
        return [self.rows[key] for key in self._unended.get((invocation.function_id, invocation.ordering_key), ())]

    def _release_successor(self, ended: Invocation, now: float) -> None:
        """Make the next invocations of an ordering key delayed, as many as there is room for."""
        name = ended.function_id, ended.ordering_key
        del self._unended[name][ended.key]
        others = self.unended(ended)
        if not others:
            del self._unended[name]
            return
        room = self.per_key.get(ended.function_id, 1) - sum(not row.held for row in others)
        waiting = sorted((row for row in others if row.held), key=lambda row: row.invocation.key)
        for row in waiting[: max(0, room)]:
            held = row.invocation
            due_at = held.due_at if held.delayed else min(held.due_at, now)
            row.invocation = replace(held, held=False, delayed=True, due_at=due_at)
            self._wait(row)

    def _note_end(self, row: Row, state: State, outcome: Outcome) -> None:
        row.state, row.code, row.message = state, outcome.code, outcome.message

    def _wait(self, row: Row) -> None:
        """Add a waiting row to the index of its kind. Held rows have none."""
        own = row.invocation
        if row.delayed:
            insort(self.delayed, (own.due_at, own.key))
        elif row.ready:
            insort(self.ready.setdefault(own.function_id, []), own.rank_key)

    def _leave(self, row: Row) -> None:
        own = row.invocation
        if row.state is State.RUNNING:
            del self.running[own.key]
        elif row.delayed:
            _remove(self.delayed, (own.due_at, own.key))
        elif row.ready:
            _remove(self.ready[own.function_id], own.rank_key)

    def _count(self, row: Row, rows: int) -> None:
        function_id = row.invocation.function_id
        old_rows, old_size = self.tally.get(function_id, (0, 0))
        self.tally[function_id] = old_rows + rows, old_size + rows * row.payload_size

    # --- deliveries -----------------------------------------------------------------------------------------

    def add_delivery(self, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float) -> None:
        self._last_delivery_id += 1
        self.put_delivery(
            PendingDelivery(
                delivery_id=self._last_delivery_id,
                key=invocation.key,
                function_id=invocation.function_id,
                condition="success" if state is State.SUCCESS else "failure",
                destination=spec,
                due_at=due_at,
            )
        )

    def put_delivery(self, pending: PendingDelivery) -> None:
        self.deliveries[pending.delivery_id] = pending
        self.undelivered[pending.key] += 1
        insort(self.due.setdefault(pending.destination, []), (pending.due_at, pending.delivery_id))

    def remove_delivery(self, delivery_id: int) -> PendingDelivery | None:
        """Remove a pending delivery and return it. Return None if none has this id."""
        pending = self.deliveries.pop(delivery_id, None)
        if pending is not None:
            _remove(self.due[pending.destination], (pending.due_at, delivery_id))
            self.undelivered[pending.key] -= 1
        return pending

    def due_deliveries(self, now: float, rows: int, each: int) -> tuple[list[PendingDelivery], float | None]:
        lines = [line for line in self.due.values() if line]
        each = min(each, max(1, rows // max(1, len(lines))))
        due, later = list[tuple[float, int]](), list[float]()
        for line in lines:
            count = bisect_right(line, (now, 1 << 62))
            due += line[: min(count, each)]
            later += [due_at for due_at, _ in line[count : count + 1]]
        return [self.deliveries[delivery_id] for _, delivery_id in sorted(due)], min(later, default=None)

    # --- functions and resources ----------------------------------------------------------------------------

    def delete_versions(self, chosen: Callable[[tuple[int, str]], bool]) -> None:
        """Delete functions and their settings. ``chosen`` gets function id and version."""
        for table in (self.functions, self.settings):
            for key in [key for key in table if chosen(key)]:
                del table[key]

    def delete_resources(self, chosen: Callable[[ResourceKey], bool]) -> None:
        """Delete resources. The cursors of triggers are deleted with them."""
        for key in [key for key in self.resources if chosen(key)]:
            del self.resources[key]
            if key[0] == "trigger":
                self.cursors.pop(key[2], None)


def _content(invocation: Invocation, idempotency_key: str) -> bytes:
    return idempotency_key.content if isinstance(idempotency_key, ContentKey) else invocation.payload


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
        node=outcome.node,
    )


def _remove(line: list[tuple[float, int]], entry: tuple[float, int]) -> None:
    index = bisect_left(line, entry)
    if index == len(line) or line[index] != entry:
        raise Violated(f"{entry[1]} is not in the index of waiting rows")
    del line[index]
