"""List of deliveries that are pending or given up, and redrive of invocations (extension of the API)."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.paging import MAX_LIMIT, bounds
from engine.http.api.records import read_states
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import read_end, read_time, zoned_time
from engine.model import PendingDelivery
from engine.model.clock import Clock
from engine.model.identity import Identity
from engine.model.limits import Label
from engine.model.urn import LATEST, FunctionUrn
from engine.pipeline.redrive import FAILED, Chosen, Redrive

BATCH_SIZE = 100  #: invocations sent again by one request that lists them, or sets no limit
STEP = 500  #: invocations that one step covers
RequestIds = Annotated[list[str], Meta(max_length=BATCH_SIZE)]
Limit = Annotated[int, Meta(ge=1, le=STEP)]
Codes = Annotated[list[int], Meta(max_length=50)]
#: Seconds that a redrive of failed invocations looks back by default. A repeat within this time returns the same ids.
SPAN = 86_400.0


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


class RedriveInvocationsBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Invocations to redrive.

    ``request_ids`` lists them. If ``failed`` is true instead, the next ``limit`` failed and discarded invocations are
    redriven, and further requests continue from ``marker``. The other fields are a filter for them. Cancelled
    invocations must be listed by id, or by their code 4208.
    """

    request_ids: RequestIds = []
    failed: bool = False
    limit: Limit = BATCH_SIZE  #: invocations of a step
    marker: str = ""  #: ``next_marker`` of the previous step; empty: first step
    query_begin_time: str = ""  #: earliest acceptance, as in lists; empty: a day ago
    query_end_time: str = ""  #: latest acceptance; empty: no limit
    status: str = ""  #: ``FAIL`` or ``DISCARD``; empty: both
    error_codes: Codes = []  #: empty: any except 4208
    source: Label = ""  #: trigger type, or ``API``; empty: any
    trigger_id: Label = ""  #: empty: any, or none
    counted: bool = True  #: False: leave out ``count``, which takes long if many are left


class RedrivenInvocation(Struct, frozen=True, kw_only=True):
    request_id: str
    new_request_id: str
    repeated: bool | UnsetType = UNSET  #: True: an earlier redrive has sent the event, and this one has sent nothing


class RefusedInvocation(Struct, frozen=True, kw_only=True):
    request_id: str
    error_message: str


class RedrivenInvocations(Struct, frozen=True, kw_only=True):
    """Result of a redrive of invocations.

    If the request listed ids, only ``redriven`` is set, in the order of the ids. If the request set ``failed``, all
    fields are set, newest invocation first. Fewer than ``limit`` invocations are handled if the engine temporarily
    accepts no more.
    """

    redriven: list[RedrivenInvocation]
    refused: list[RefusedInvocation] | UnsetType = UNSET  #: invocations that can never be redriven
    count: int | UnsetType = UNSET  #: number of invocations that were left before this step
    next_marker: str | UnsetType = UNSET  #: ``marker`` of the next step; empty: no invocations are left


class RedriveApi:
    def __init__(self, redrive: Redrive, catalog: Catalog, identity: Identity, clock: Clock, region: str) -> None:
        self._redrive, self._catalog, self._identity = redrive, catalog, identity
        self._clock, self._region = clock, region

    def resources(self) -> list[Resource]:
        invocations = f"{BASE}/functions/{{function_urn}}/async-invocations"
        return [
            Resource(path=f"{BASE}/deliveries", methods={"GET": self.list_deliveries}),
            Resource(path=f"{invocations}/redrive", methods={"POST": self.redrive_invocations}),
        ]

    async def list_deliveries(self, call: Call) -> Reply:
        offset, limit = bounds(call, "limit", maximum=MAX_LIMIT, default=100)
        found, count = await self._redrive.given_up(call.project, offset, limit)
        items = [self.item(pending) for pending in found]
        pending, further = await self._redrive.pending(call.project, call.number("after", 0), limit)
        return json_reply(
            DeliveryList(
                deliveries=items,
                count=count,
                next_marker=offset + len(items),
                retrying=[self.item(pending) for pending in pending],
                next_after=further,
            )
        )

    async def redrive_invocations(self, call: Call) -> Reply:
        urn = call.urn
        body = await call.read(RedriveInvocationsBody)
        if body.failed is bool(body.request_ids):
            raise InvalidField("request_ids", body.request_ids, "list some ids, or set failed to true")
        if body.failed:
            return json_reply(await self._step(urn, body))
        mark = self._identity.next_key(self._clock.now())  # larger than all keys before
        done = [self._redriven(one, await self._redrive.invoke(urn, one), mark) for one in body.request_ids]
        return json_reply(RedrivenInvocations(redriven=done))

    async def _step(self, urn: FunctionUrn, body: RedriveInvocationsBody) -> RedrivenInvocations:
        begin, end = body.query_begin_time, body.query_end_time
        below = self._identity.key_of(body.marker) if body.marker else None
        if body.marker and below is None:
            raise InvalidField("marker", body.marker, "must be the next_marker of the previous step, or empty")
        states = read_states(body.status) & FAILED
        if not states:
            raise InvalidField("status", body.status, "must be FAIL or DISCARD")
        chosen = Chosen(
            states=states,
            codes=frozenset(body.error_codes),
            source=body.source,
            trigger_id=body.trigger_id,
            begin=read_time("query_begin_time", begin) if begin else self._clock.now() - SPAN,
            end=read_end("query_end_time", end) if end else math.inf,
        )
        mark = self._identity.next_key(self._clock.now())
        step = await self._redrive.invoke_failed(urn, chosen, below=below, limit=body.limit, counted=body.counted)
        return RedrivenInvocations(
            redriven=[self._redriven(old, new, mark) for old, new in step.sent],
            refused=[RefusedInvocation(request_id=one, error_message=why) for one, why in step.refused],
            count=UNSET if step.count is None else step.count,
            next_marker="" if step.below is None else self._identity.request_id(step.below),
        )

    def _redriven(self, old: str, new: str, mark: int) -> RedrivenInvocation:
        """Describe a redriven invocation. An id whose key is below ``mark`` was made by an earlier redrive."""
        repeated = (self._identity.key_of(new) or mark) < mark
        return RedrivenInvocation(request_id=old, new_request_id=new, repeated=repeated or UNSET)

    def item(self, pending: PendingDelivery) -> DeliveryItem:
        """Return a pending or given-up delivery in the form in which lists describe it."""
        function, delivery_status = (
            self._catalog.resolve(pending.function_id, LATEST),
            self._redrive.delivery_status(pending),
        )
        next_try = max(pending.due_at, delivery_status.held_until)
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
            under_way=delivery_status.under_way,
            destination_state="failing" if delivery_status.failing else "ok",
            destination_next_try=zoned_time(delivery_status.held_until) if delivery_status.held_until else "",
        )
