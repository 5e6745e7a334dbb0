"""Rows of a storage in memory, which its parts share: invocations and pending deliveries."""

from __future__ import annotations

from msgspec import Struct, field

from engine.model import Attempt, DestinationSpec, Invocation, PendingDelivery, State


class Row(Struct, kw_only=True):
    """Stored invocation with its state, result and attempts."""

    invocation: Invocation
    state: State = State.WAIT
    begun: bool = False  #: of a running row: the handler of its attempt has begun
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


class MemoryTables:
    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        self.deliveries: dict[int, PendingDelivery] = {}
        self.given_up: dict[int, PendingDelivery] = {}
        self._last_delivery_id = 0

    def append(self, invocation: Invocation) -> None:
        self.rows[invocation.key] = Row(invocation=invocation)

    def add_delivery(self, invocation: Invocation, state: State, spec: DestinationSpec, due_at: float) -> None:
        self._last_delivery_id += 1
        self.deliveries[self._last_delivery_id] = PendingDelivery(
            delivery_id=self._last_delivery_id,
            key=invocation.key,
            function_id=invocation.function_id,
            condition="success" if state is State.SUCCESS else "failure",
            destination=spec,
            due_at=due_at,
        )
