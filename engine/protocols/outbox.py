"""Outbox: outcomes that must be delivered to destinations."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from msgspec import Struct

from engine.model.invocation import DestinationSpec, Invocation, PendingDelivery
from engine.protocols.records import Count

#: Returns the destination that a function has now. Arguments: function id, version, condition.
PresentDestination = Callable[[int, str, str], DestinationSpec | None]


class DeliveryFilter(Struct, frozen=True, kw_only=True):
    """Filter of lists of deliveries."""

    functions: Collection[int]
    destination: DestinationSpec | None = None  #: None: any
    given_up: bool = False  #: False: those that are neither delivered nor given up


class DeliveryCount(Struct, frozen=True, kw_only=True):
    """Number of the deliveries of a function to a destination."""

    function_id: int
    destination: DestinationSpec
    given_up: bool
    count: int


class Outbox(Protocol):
    """Store of pending deliveries: outcomes that destinations have not confirmed yet, and given-up deliveries.

    Ids of deliveries are positive, increase, and are not used again.
    """

    async def due(self, now: float, rows: int, each: int) -> tuple[Sequence[PendingDelivery], float | None]:
        """Return due deliveries, and the time at which the next delivery becomes due (None: no later one is scheduled).

        About ``rows`` deliveries are returned in total, and up to ``each`` for each destination, ordered by due time.
        Every destination with due deliveries is included, regardless of the number of deliveries to others.
        """
        ...

    async def delivered(self, pending: PendingDelivery, append: Invocation | None = None) -> None:
        """Remove a confirmed delivery. If ``append`` is given, store that invocation in the same transaction."""
        ...

    async def postpone(self, pending: PendingDelivery, due_at: float | None, error: str) -> None:
        """Schedule the next attempt of a delivery at ``due_at``. None gives up the delivery.

        A given-up delivery stays stored with ``error``, so that it can be redriven. If the delivery was redriven after
        ``pending`` had been read, nothing is changed.
        """
        ...

    async def given_up(
        self, functions: Collection[int], offset: int, limit: int
    ) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of the given-up deliveries of these functions, oldest first, and their total number."""
        ...

    async def count_given_up(self, functions: Collection[int], most: int) -> Count:
        """Count the given-up deliveries of these functions, but no more than ``most``."""
        ...

    async def page(self, chosen: DeliveryFilter, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of deliveries with ids above ``after``, and the value of ``after`` for the next page.

        The second value is 0 after the last page. A page before the last may have fewer than ``limit`` deliveries too.
        """
        ...

    async def counts(self, functions: Collection[int], after: int) -> tuple[Sequence[DeliveryCount], int]:
        """Count a limited number of deliveries of ``functions`` with ids above ``after``.

        Returns the counts, and the value of ``after`` for the next call; 0 after the last one.
        """
        ...

    async def deliveries_of(self, key: int) -> Sequence[PendingDelivery]:
        """Return all deliveries of an invocation's outcome, including given-up ones."""
        ...

    async def revive(
        self, functions: Collection[int], ids: Collection[int], now: float, present: PresentDestination | None = None
    ) -> Sequence[PendingDelivery]:
        """Make deliveries of these functions due now and restart their age, even of given-up ones. Return them.

        Ids of other functions' deliveries are ignored. ``present``, called in any thread, returns the destinations that
        replace the stored ones. Deliveries for which it returns None, or whose invocations are gone, are left out.
        """
        ...

    async def discard(
        self, functions: Collection[int], ids: Collection[int], *, given_up: bool = True
    ) -> Sequence[int]:
        """Remove deliveries of these functions that are given up, or those that are not. Return their ids.

        Ids of other functions' deliveries, and of those in the other state, are ignored.
        """
        ...
