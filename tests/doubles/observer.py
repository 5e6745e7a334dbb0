"""Observer of a storage in memory."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model import Invocation, PendingDelivery, State
from engine.protocols import Settlement
from tests.doubles.rows import Row


class Observer:
    """Observer of all changes of the tables, in their order. This one does nothing."""

    def stored(self, invocation: Invocation, idempotency_key: str) -> None: ...

    def available(self, invocation: Invocation) -> None:
        """Note that an invocation may start from now on."""

    def started(self, invocation: Invocation, before: State, *, begun: bool) -> None:
        """Note the start of an attempt, or of its handler if ``begun``, whose row was in the state ``before``."""

    def settled(self, settlement: Settlement) -> None: ...

    def ended(self, row: Row) -> None:
        """Note the end of a waiting invocation."""

    def delivered(self, pending: PendingDelivery, appended: Invocation | None) -> None: ...

    def postponed(self, pending: PendingDelivery, due_at: float | None) -> None: ...

    def purged(self, rows: Sequence[Row], kept: int) -> None:
        """Note that invocations were pruned, when ``kept`` ended ones were stored."""
