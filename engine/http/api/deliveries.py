"""Deliveries of outcomes to destinations: their list, redrive and removal, and the state of each destination.

A redrive or removal applies to the deliveries that a request lists, or to all given-up ones that match a filter. A
request with ``limit`` is one step. Its reply has ``next_after``, from which the next request goes on.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.paging import ITEMS, MAX_LIMIT, PAGE, bounds, page_of
from engine.http.api.routing import BASE, ApiFamily, BodyCall, Call, Subject, operation, own_urn, read
from engine.http.api.times import zoned_time
from engine.model import DestinationSpec, Function, PendingDelivery
from engine.model.identity import Identity
from engine.model.limits import Label, Param
from engine.model.urn import LATEST
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.failed_deliveries import DeliveryScope, DeliveryStep, FailedDeliveries

STEP = 500  #: deliveries that one step covers
Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Ids = Annotated[list[Id], Meta(max_length=STEP)]
Limit = Annotated[int, Meta(ge=1, le=STEP)]


class DeliveryItem(Struct, frozen=True, kw_only=True):
    delivery_id: int
    request_id: str
    func_urn: str
    condition: str  #: ``success`` or ``failure``
    destination: str
    param: str
    tries: int
    error: str  #: error of the last try
    next_try: str  #: earliest time; empty after giving up
    under_way: bool  #: True: a try is running
    destination_state: str  #: ``ok``, or ``failing`` if its last delivery failed
    destination_next_try: str  #: deliveries to this destination wait until this time; empty: no pause


class DeliveryList(Struct, frozen=True, kw_only=True):
    deliveries: list[DeliveryItem]  #: given up
    count: int
    next_marker: int
    retrying: list[DeliveryItem]  #: neither delivered nor given up, sorted by id
    next_after: int  #: ``after`` for the next page of ``retrying``; 0: last page. Pages may be short, or empty


class ChosenDeliveries(Struct, frozen=True, kw_only=True):
    """Deliveries to which a request applies.

    Either ``delivery_ids`` lists them, or ``all`` is true: then it applies to all of the project that match the other
    fields.
    """

    delivery_ids: Ids = []
    all: bool = False
    pending: bool = False  #: those that wait, instead of given-up ones
    function: str = ""  #: name or URN; empty: any
    destination: Label = ""  #: kind of the destination, with ``param``; empty: any
    param: Param = ""
    limit: Limit | UnsetType = UNSET  #: deliveries of this step; absent: all that match, in one request
    after: Id = 0  #: ``next_after`` of the previous step


class RedriveDeliveriesBody(ChosenDeliveries, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deliveries to redrive. ``delivery_ids`` may list pending ones too, which are then tried at once."""

    redirect: bool = False  #: to the present destinations of their functions; those without one are left out


class DiscardDeliveriesBody(ChosenDeliveries, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deliveries to remove. Those in ``delivery_ids`` that are in the other state than ``pending`` are ignored."""


class RedrivenDeliveries(Struct, frozen=True, kw_only=True):
    redriven: list[int]
    next_after: int | UnsetType = UNSET  #: ``after`` of the next step; 0: this was the last one. Set if ``limit`` was


class DiscardedDeliveries(Struct, frozen=True, kw_only=True):
    discarded: list[int]
    next_after: int | UnsetType = UNSET  #: as in the reply to a redrive


class DestinationItem(Struct, frozen=True, kw_only=True):
    """Destination of a version of a function. Its state counts from the start of the engine."""

    func_urn: str
    condition: str  #: ``success`` or ``failure``
    destination: str
    param: str
    state: str  #: ``ok``, ``failing`` (its last delivery failed), or ``paused`` (deliveries wait until ``next_try``)
    problem: str  #: cause of the last failure; empty: its last delivery succeeded, or there was none
    since: str  #: time of the first failure in a row; empty: none
    failures: int  #: consecutive failures
    next_try: str  #: empty: no pause


class DestinationList(Struct, frozen=True, kw_only=True):
    destinations: list[DestinationItem]
    count: int
    next_marker: int


class DeliveriesApi(ApiFamily):
    subject = Subject("delivery")

    def __init__(
        self,
        deliveries: FailedDeliveries,
        destinations: DeliveryWorker,
        catalog: Catalog,
        identity: Identity,
        region: str,
    ) -> None:
        self._deliveries, self._destinations = deliveries, destinations
        self._catalog, self._identity, self._region = catalog, identity, region

    @read("ListDestinations", f"{BASE}/destinations", DestinationList, query=ITEMS, own=True)
    async def list_destinations(self, call: Call) -> DestinationList:
        page = page_of(call, list(self._catalog.destinations_in(call.project)), "maxitems", maximum=MAX_LIMIT)
        items = [self._destination(*entry) for entry in page.items]
        return DestinationList(destinations=items, count=page.count, next_marker=page.next_marker)

    @read("ListDeliveries", f"{BASE}/deliveries", DeliveryList, query=(*PAGE, "after"), own=True)
    async def list_deliveries(self, call: Call) -> DeliveryList:
        offset, limit = bounds(call, "limit", maximum=MAX_LIMIT, default=100)
        deliveries, count = await self._deliveries.oldest(DeliveryScope(project=call.project), offset, limit)
        items = [self.item(pending) for pending in deliveries]
        waiting = DeliveryScope(project=call.project, given_up=False)
        pending, further = await self._deliveries.page(waiting, after=call.number("after", 0), limit=limit)
        return DeliveryList(
            deliveries=items,
            count=count,
            next_marker=offset + len(items),
            retrying=[self.item(pending) for pending in pending],
            next_after=further,
        )

    @operation(
        "RedriveDeliveries", "POST", f"{BASE}/deliveries/redrive", RedriveDeliveriesBody, RedrivenDeliveries, own=True
    )
    async def redrive(self, call: BodyCall[RedriveDeliveriesBody]) -> RedrivenDeliveries:
        body = await call.read()
        if not _is_all(body):
            done = await self._deliveries.redrive_these(self._scope(call, body), body.delivery_ids)
            return RedrivenDeliveries(redriven=[*done])
        ids, after = await self._steps(call, body, self._deliveries.redrive)
        return RedrivenDeliveries(redriven=ids, next_after=after)

    @operation(
        "DiscardDeliveries", "POST", f"{BASE}/deliveries/discard", DiscardDeliveriesBody, DiscardedDeliveries, own=True
    )
    async def discard(self, call: BodyCall[DiscardDeliveriesBody]) -> DiscardedDeliveries:
        body = await call.read()
        if not _is_all(body):
            done = await self._deliveries.discard_these(self._scope(call, body), body.delivery_ids)
            return DiscardedDeliveries(discarded=[*done])
        ids, after = await self._steps(call, body, self._deliveries.discard)
        return DiscardedDeliveries(discarded=ids, next_after=after)

    async def _steps(
        self,
        call: Call,
        body: ChosenDeliveries,
        step: Callable[[DeliveryScope, int, int], Awaitable[DeliveryStep]],
    ) -> tuple[list[int], int | UnsetType]:
        """Make one step, or all if the request sets no limit. Return the ids, and ``next_after`` of one step."""
        scope = self._scope(call, body)
        if body.limit is not UNSET:
            done = await step(scope, body.after, body.limit)
            return [*done.delivery_ids], done.after
        ids: list[int] = []
        after: int = body.after
        while True:
            done = await step(scope, after, STEP)
            ids += done.delivery_ids
            after = done.after
            if not after:
                return ids, UNSET

    def _scope(self, call: Call, body: ChosenDeliveries) -> DeliveryScope:
        return DeliveryScope(
            project=call.project,
            function=own_urn(body.function, call.project, self._region) if body.function else None,
            destination=DestinationSpec(destination=body.destination, param=body.param) if body.destination else None,
            given_up=not body.pending,
            redirect=isinstance(body, RedriveDeliveriesBody) and body.redirect,
        )

    def item(self, pending: PendingDelivery) -> DeliveryItem:
        """Return a pending or given-up delivery in the form in which lists describe it."""
        function = self._catalog.resolve(pending.function_id, LATEST)
        status = self._destinations.delivery_status(pending)
        next_try = max(pending.due_at, status.held_until)
        return DeliveryItem(
            delivery_id=pending.delivery_id,
            request_id=self._identity.request_id(pending.key),
            func_urn=function.urn(self._region).function if function else "",
            condition=pending.condition,
            destination=pending.destination.destination,
            param=pending.destination.param,
            tries=pending.tries,
            error=pending.error,
            next_try="" if math.isinf(next_try) else zoned_time(next_try),
            under_way=status.under_way,
            destination_state="failing" if status.failing else "ok",
            destination_next_try=zoned_time(status.held_until) if status.held_until else "",
        )

    def _destination(self, function: Function, condition: str, spec: DestinationSpec) -> DestinationItem:
        status = self._destinations.destination_status(spec)
        return DestinationItem(
            func_urn=str(function.urn(self._region)),
            condition=condition,
            destination=spec.destination,
            param=spec.param,
            state=status.state,
            problem=status.problem,
            since=zoned_time(status.since) if status.since else "",
            failures=status.failures,
            next_try=zoned_time(status.next_try) if status.next_try else "",
        )


def _is_all(body: ChosenDeliveries) -> bool:
    """Return whether the request applies to all deliveries that match. Raises InvalidField if it is ambiguous."""
    if body.all is bool(body.delivery_ids):
        raise InvalidField("delivery_ids", body.delivery_ids, "list some ids, or set all to true")
    if not body.all and (body.function or body.destination or body.param or body.after or body.limit is not UNSET):
        raise InvalidField("all", False, "must be true beside function, destination, param, limit or after")
    if body.param and not body.destination:
        raise InvalidField("destination", "", "name the kind of the destination whose param is given")
    return body.all
