"""Tables of the simulated storage. They survive the simulated process.

Rows are indexed as a storage on disk needs them, so that no operation takes time in proportion to all rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from heapq import heappop, heappush

from msgspec.structs import replace

from engine.errors import IdempotencyConflict
from engine.model import AsyncSettings, DestinationSpec, Function, Invocation, PendingDelivery, State
from engine.protocols import Settlement, StoredResource
from engine.testing.rows import Row, new_delivery, released


class Violated(Exception):
    """Write that breaks a rule of the storage, such as a second end of an invocation."""


class Tables:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.ready: dict[int, list[tuple[float, int]]] = {}  #: rank and key, by function
        self.delayed: list[tuple[float, int]] = []  #: due time and key
        self.running: dict[int, None] = {}
        self.unended: dict[tuple[int, str], dict[int, None]] = {}  #: keys of rows by function and ordering key
        self.ended: list[tuple[float, int]] = []  #: heap of end and key
        self.tally: dict[int, tuple[int, int]] = {}  #: rows and bytes by function
        self.idempotency: dict[tuple[int, str], tuple[int, bytes, float]] = {}
        self.expiries: list[tuple[float, int, str]] = []
        self.deliveries: dict[int, PendingDelivery] = {}
        self.due: dict[DestinationSpec, list[tuple[float, int]]] = {}
        self.undelivered: Counter[int] = Counter()  #: pending deliveries by key of the invocation
        self.given_up: dict[int, PendingDelivery] = {}
        self.last_delivery = 0
        self.functions: dict[tuple[int, str], Function] = {}
        self.settings: dict[tuple[int, str], AsyncSettings] = {}
        self.resources: dict[tuple[str, str, str], StoredResource] = {}
        self.cursors: dict[str, dict[str, bytes]] = {}
        self.stores: dict[tuple[str, str], dict[str, bytes]] = {}  #: rows of plugins by plugin and table
        self.last_key = 0

    # --- invocations ----------------------------------------------------------------------------------------

    def append(self, invocation: Invocation) -> None:
        if invocation.key in self.rows:
            raise Violated(f"the key {invocation.key} was used twice")
        self.last_key = max(self.last_key, invocation.key)
        if invocation.ordering_key:
            others = self.unended.setdefault((invocation.function_id, invocation.ordering_key), {})
            invocation = replace(invocation, held=bool(others))
            others[invocation.key] = None
        row = self.rows[invocation.key] = Row(invocation=invocation)
        self._count(invocation.function_id, 1, row.payload_size)
        self._wait(row)

    def claim(self, invocation: Invocation, token: str, retention: float) -> int | None:
        """Store an idempotency key and return None, or return the key of the invocation that used it before."""
        now, name = invocation.accepted_on_clock, (invocation.function_id, token)
        earlier = self.idempotency.get(name)
        if earlier is not None and earlier[2] > invocation.expires_others_at:
            if earlier[1] != invocation.payload:
                raise IdempotencyConflict(token)
            return earlier[0]
        self.idempotency[name] = invocation.key, invocation.payload, now + retention
        heappush(self.expiries, (now + retention, *name))
        return None

    def start(self, invocation: Invocation, started_at: float, *, begun: bool) -> None:
        row = self.rows[invocation.key]
        if row.state is not (State.RUNNING if begun else State.WAIT):
            raise Violated(f"an attempt of {invocation.key} starts in state {row.state}")
        if not begun:
            self._leave(row)
            self.running[invocation.key] = None
        row.state, row.started_at, row.begun = State.RUNNING, started_at, begun

    def settle(self, settlement: Settlement) -> None:
        before, outcome = settlement.invocation, settlement.outcome
        row = self.rows[before.key]
        if row.state.final:
            raise Violated(f"{before.key} ends as {settlement.state}, after it has ended as {row.state}")
        self._leave(row)
        row.code, row.message, row.result = outcome.code, outcome.message, outcome.result
        if settlement.retry is not None:
            row.invocation, row.state = settlement.retry, State.WAIT
            self._wait(row)
        else:
            row.started_at = outcome.started_at if settlement.ran else None
            self.end(row, settlement.state, outcome.ended_at)
        if settlement.deliver_to is not None:
            self.add_delivery(row, settlement.deliver_to, outcome.ended_at)

    def end(self, row: Row, state: State, ended_at: float) -> None:
        """End an invocation that ``leave`` has removed from its index."""
        row.state, row.ended_at = state, ended_at
        heappush(self.ended, (max(ended_at, row.invocation.accepted_at), row.invocation.key))
        self._count(row.invocation.function_id, -1, -row.payload_size)
        if row.invocation.ordering_key:
            self._release(row.invocation, ended_at)

    def _release(self, ended: Invocation, now: float) -> None:
        """Make the next invocation of an ordering key delayed, unless another one of the key is not held."""
        name = ended.function_id, ended.ordering_key
        others = self.unended[name]
        del others[ended.key]
        if not others:
            del self.unended[name]
        elif all(self.rows[key].invocation.held for key in others):
            row = self.rows[min(others)]
            row.invocation = released(row.invocation, now)
            self._wait(row)

    def cancel(self, row: Row, state: State, code: int, message: str, ended_at: float) -> None:
        """End a waiting invocation without an attempt."""
        self._leave(row)
        row.code, row.message = code, message
        self.end(row, state, ended_at)

    def revive(self, key: int, *, crashed: bool) -> None:
        """Put a running invocation back to WAIT."""
        row = self.rows[key]
        self._leave(row)
        one = row.crashed() if crashed else row.invocation
        row.invocation, row.state = replace(one, delayed=False), State.WAIT
        self._wait(row)

    def promote(self, key: int) -> Invocation:
        row = self.rows[key]
        self._leave(row)
        row.invocation = replace(row.invocation, delayed=False)
        self._wait(row)
        return row.invocation

    def drop(self, key: int) -> Row:
        row = self.rows.pop(key)
        for one in [one for one, pending in self.given_up.items() if pending.key == key]:
            del self.given_up[one]
        return row

    def waiting(self, function_id: int) -> list[int]:
        """Return the keys of a function's waiting invocations: held ones first, and delayed ones last."""
        held = [key for (owner, _), keys in self.unended.items() if owner == function_id for key in keys]
        ready = [key for _, key in self.ready.get(function_id, [])]
        delayed = [key for _, key in self.delayed if self.rows[key].invocation.function_id == function_id]
        return [*(key for key in held if self.rows[key].invocation.held), *ready, *delayed]

    def _wait(self, row: Row) -> None:
        one = row.invocation
        if one.held:
            return
        if one.delayed:
            insort(self.delayed, (one.due_at, one.key))
        else:
            insort(self.ready.setdefault(one.function_id, []), one.rank_key)

    def _leave(self, row: Row) -> None:
        one = row.invocation
        if one.held:
            return
        if row.state is State.RUNNING:
            del self.running[one.key]
        elif one.delayed:
            _remove(self.delayed, (one.due_at, one.key))
        else:
            _remove(self.ready[one.function_id], one.rank_key)

    def _count(self, function_id: int, rows: int, size: int) -> None:
        old_rows, old_size = self.tally.get(function_id, (0, 0))
        self.tally[function_id] = old_rows + rows, old_size + size

    # --- deliveries -----------------------------------------------------------------------------------------

    def add_delivery(self, row: Row, spec: DestinationSpec, due_at: float) -> None:
        self.last_delivery += 1
        one = new_delivery(self.last_delivery, row.invocation, row.state, spec, due_at)
        self.deliveries[one.delivery_id] = one
        self.undelivered[one.key] += 1
        insort(self.due.setdefault(spec, []), (due_at, one.delivery_id))

    def remove_delivery(self, delivery_id: int) -> PendingDelivery | None:
        one = self.deliveries.pop(delivery_id, None)
        if one is not None:
            _remove(self.due[one.destination], (one.due_at, delivery_id))
            self.undelivered[one.key] -= 1
        return one

    def put_delivery(self, one: PendingDelivery) -> None:
        self.deliveries[one.delivery_id] = one
        self.undelivered[one.key] += 1
        insort(self.due[one.destination], (one.due_at, one.delivery_id))

    def due_deliveries(self, now: float, each: int) -> tuple[list[PendingDelivery], float | None]:
        found: list[PendingDelivery] = []
        later: list[float] = []
        for line in self.due.values():
            count = bisect_right(line, (now, 1 << 62))
            found += [self.deliveries[one] for _, one in line[: min(count, each)]]
            later += [due for due, _ in line[count : count + 1]]
        return sorted(found, key=lambda one: (one.due_at, one.delivery_id)), min(later, default=None)

    # --- pruning --------------------------------------------------------------------------------------------

    def purge(self, now: float, age: float, rows: int) -> tuple[list[Row], bool, float | None]:
        """Drop ended invocations and idempotency keys. Return the rows, whether more are due, and the next due time."""
        dropped: list[Row] = []
        kept: list[tuple[float, int]] = []
        while self.ended and len(dropped) < 200 and (self.ended[0][0] <= now - age or len(self.ended) > rows):
            ended, key = heappop(self.ended)
            if self.undelivered[key]:
                kept.append((ended, key))
            else:
                del self.undelivered[key]
                dropped.append(self.drop(key))
        oldest = self.ended[0][0] + age if self.ended else None
        for one in kept:
            heappush(self.ended, one)
        self.drop_tokens(now)
        due = [one for one in (oldest, self.expiries[0][0] if self.expiries else None) if one is not None]
        return dropped, len(dropped) == 200, min(due, default=None)

    def drop_tokens(self, now: float) -> None:
        """Drop expired idempotency keys."""
        while self.expiries and self.expiries[0][0] <= now:
            _, function_id, token = heappop(self.expiries)
            found = self.idempotency.get((function_id, token))
            if found is not None and found[2] <= now:
                del self.idempotency[function_id, token]


def _remove(line: list[tuple[float, int]], entry: tuple[float, int]) -> None:
    index = bisect_left(line, entry)
    if index == len(line) or line[index] != entry:
        raise Violated(f"{entry[1]} is not in the index of waiting rows")
    del line[index]
