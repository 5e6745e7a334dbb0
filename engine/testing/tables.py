"""Rows of a storage in memory, which its parts share: invocations and pending deliveries."""

from __future__ import annotations

from msgspec.structs import replace

from engine.model import DestinationSpec, Invocation, PendingDelivery, State
from engine.testing.rows import Row, new_delivery, released
from engine.testing.status_log import MemoryStates


class MemoryTables:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.deliveries: dict[int, PendingDelivery] = {}
        self.given_up: dict[int, PendingDelivery] = {}
        self.states = MemoryStates()
        #: request id, payload and expiry, by function and key
        self.idempotency_keys: dict[tuple[int, str], tuple[str, bytes, float]] = {}
        self._last_delivery_id = 0

    def append(self, invocation: Invocation) -> Invocation:
        """Store an invocation. Return it with ``held`` set if another one of its ordering key has not ended."""
        if invocation.ordering_key and self.unended(invocation):
            invocation = replace(invocation, held=True)
        self.rows[invocation.key] = Row(invocation=invocation)
        self.states.note(invocation, State.WAIT, invocation.accepted_on_clock)
        return invocation

    def release_successor(self, ended: Invocation, now: float) -> None:
        """Make the next invocation of an ordering key delayed, unless another one of the key has not ended."""
        rows = self.unended(ended) if ended.ordering_key else []
        if rows and all(row.held for row in rows):
            first = min(rows, key=lambda row: row.invocation.key)
            first.invocation = released(first.invocation, now)

    def unended(self, one: Invocation) -> list[Row]:
        name = one.function_id, one.ordering_key
        rows = [row for row in self.rows.values() if (row.invocation.function_id, row.invocation.ordering_key) == name]
        return [row for row in rows if not row.state.final]

    def add_delivery(self, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float) -> None:
        self._last_delivery_id += 1
        self.deliveries[self._last_delivery_id] = new_delivery(self._last_delivery_id, invocation, state, spec, due_at)
