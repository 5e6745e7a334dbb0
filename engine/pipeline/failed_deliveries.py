"""Lists of a project's deliveries by filter, and redrive and removal of given-up ones in steps of limited size.

A step covers the given-up deliveries with the next ids. A delivery that is given up again during the steps keeps its id
and is not covered a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct

from engine.functions.catalog import Catalog
from engine.model import DestinationSpec, PendingDelivery
from engine.model.clock import Clock
from engine.model.urn import FunctionUrn
from engine.pipeline.delivery import DeliveryWorker
from engine.protocols import Count, DeliveryFilter, Outbox

LOOKS = 4  #: pages of the outbox that one page of a list may read
MOST = 10_000  #: given-up deliveries that are counted


class DeliveryScope(Struct, frozen=True, kw_only=True):
    """Deliveries of a project, as a caller chooses them."""

    project: str
    function: FunctionUrn | None = None  #: None: any
    destination: DestinationSpec | None = None  #: None: any
    given_up: bool = True  #: False: those that wait
    redirect: bool = False  #: a redrive sends them to the present destinations of their functions


class DeliveryStep(Struct, frozen=True, kw_only=True):
    delivery_ids: Sequence[int]
    after: int  #: ``after`` of the next step; 0: this was the last one


class DeliveryCounts(Struct, frozen=True, kw_only=True):
    """Numbers of deliveries by destination. They are lower bounds unless ``complete``."""

    pending: Mapping[DestinationSpec, int]
    given_up: Mapping[DestinationSpec, int]
    complete: bool


class FailedDeliveries:
    def __init__(self, outbox: Outbox, catalog: Catalog, worker: DeliveryWorker, clock: Clock) -> None:
        self._outbox, self._catalog, self._worker, self._clock = outbox, catalog, worker, clock

    async def oldest(self, scope: DeliveryScope, offset: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        """Return a page of the given-up deliveries, oldest first, and their total number."""
        return await self._outbox.given_up(self._functions(scope), offset, limit)

    async def page(self, scope: DeliveryScope, *, after: int, limit: int) -> tuple[Sequence[PendingDelivery], int]:
        """Return up to ``limit`` deliveries with ids above ``after``, and ``after`` for the next page; 0: last page.

        A page has fewer deliveries if none are found in many rows.
        """
        chosen = self._filter(scope)
        deliveries: list[PendingDelivery] = []
        for _ in range(LOOKS):
            page, after = await self._outbox.page(chosen, after, limit - len(deliveries))
            deliveries += page
            if not after or len(deliveries) >= limit:
                break
        return deliveries, after

    async def counts(self, scope: DeliveryScope, looks: int = 1) -> DeliveryCounts:
        """Count the deliveries of a scope in ``looks`` parts of the outbox. Raises Unavailable as ``Outbox.counts``."""
        functions, after = self._functions(scope), 0
        pending, given_up = Counter[DestinationSpec](), Counter[DestinationSpec]()
        for _ in range(looks):
            rows, after = await self._outbox.counts(functions, after)
            for row in rows:
                if scope.destination in (None, row.destination):
                    (given_up if row.given_up else pending)[row.destination] += row.count
            if not after:
                break
        return DeliveryCounts(pending=pending, given_up=given_up, complete=not after)

    async def given_up(self, scope: DeliveryScope) -> Count | None:
        """Count up to ``MOST`` given-up deliveries; None if no index has the number, as of one destination."""
        if scope.destination is not None or not scope.given_up:
            return None
        return await self._outbox.count_given_up(self._functions(scope), MOST)

    async def redrive(self, scope: DeliveryScope, after: int, limit: int) -> DeliveryStep:
        """Redrive the next deliveries of a scope."""
        deliveries, after = await self._outbox.page(self._filter(scope), after, limit)
        ids = [delivery.delivery_id for delivery in deliveries]
        return DeliveryStep(delivery_ids=await self.redrive_these(scope, ids), after=after)

    async def redrive_these(self, scope: DeliveryScope, delivery_ids: Collection[int]) -> Sequence[int]:
        """Make these deliveries of a scope's functions due now, and restart the day for which a delivery is retried.

        Those of either state are redriven. Returns the ids of the deliveries that exist, and have a destination if
        they are redirected. For each destination, one delivery is tried even if the circuit breaker is open.
        """
        functions, present = self._functions(scope), self._catalog.destination_of if scope.redirect else None
        revived = await self._outbox.revive(functions, delivery_ids, self._clock.now(), present)
        self._worker.probe(pending.destination for pending in revived)
        return [pending.delivery_id for pending in revived]

    async def discard(self, scope: DeliveryScope, after: int, limit: int) -> DeliveryStep:
        """Remove the next deliveries of a scope."""
        deliveries, after = await self._outbox.page(self._filter(scope), after, limit)
        done = await self.discard_these(scope, [delivery.delivery_id for delivery in deliveries])
        return DeliveryStep(delivery_ids=done, after=after)

    async def discard_these(self, scope: DeliveryScope, delivery_ids: Collection[int]) -> Sequence[int]:
        """Remove these deliveries of a scope's functions, as far as they are in its state. Return their ids."""
        return await self._outbox.discard(self._functions(scope), delivery_ids, given_up=scope.given_up)

    def _filter(self, scope: DeliveryScope) -> DeliveryFilter:
        return DeliveryFilter(functions=self._functions(scope), destination=scope.destination, given_up=scope.given_up)

    def _functions(self, scope: DeliveryScope) -> Collection[int]:
        if scope.function is not None:
            return [self._catalog.find(scope.function).function_id]
        return [function.function_id for function in self._catalog.list(scope.project)]
