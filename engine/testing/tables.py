"""Rows of a storage in memory, which its parts share: invocations and pending deliveries."""

from __future__ import annotations

from engine.model import DestinationSpec, Invocation, PendingDelivery, State
from engine.testing.rows import Row, new_delivery
from engine.testing.status_log import MemoryStates


class MemoryTables:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.deliveries: dict[int, PendingDelivery] = {}
        self.given_up: dict[int, PendingDelivery] = {}
        self.states = MemoryStates()
        self._last_delivery_id = 0

    def append(self, invocation: Invocation) -> None:
        self.rows[invocation.key] = Row(invocation=invocation)
        self.states.note(invocation, State.WAIT, invocation.accepted_on_clock)

    def add_delivery(self, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float) -> None:
        self._last_delivery_id += 1
        self.deliveries[self._last_delivery_id] = new_delivery(self._last_delivery_id, invocation, state, spec, due_at)
