"""Ours: deliveries that fail or were given up, and sending again what ended badly."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta, Struct

from engine.errors import InvalidField
from engine.http.api.paging import MAX_LIMIT, bounds
from engine.http.api.parts import Parts
from engine.http.api.routing import BASE, Call, Resource
from engine.http.api.times import zoned_time
from engine.http.wire import Reply, json_reply
from engine.model import Owed
from engine.urn import LATEST

Ids = Annotated[list[int], Meta(max_length=500)]
RequestIds = Annotated[list[str], Meta(min_length=1, max_length=100)]


class DeliveryItem(Struct, frozen=True, kw_only=True):
    delivery_id: int
    request_id: str
    func_urn: str
    condition: str  #: ``success`` or ``failure``
    destination: str
    param: str
    tries: int
    error: str  #: of the last try
    next_try: str  #: empty once it is given up


class DeliveryList(Struct, frozen=True, kw_only=True):
    deliveries: list[DeliveryItem]  #: given up
    count: int
    next_marker: int
    retrying: list[DeliveryItem]  #: failed, and tried again by themselves: the next ones


class RedriveDeliveriesBody(Struct, frozen=True, kw_only=True):
    """Some, by their ids, or all that are given up."""

    delivery_ids: Ids = []
    all: bool = False


class RedrivenDeliveries(Struct, frozen=True, kw_only=True):
    redriven: list[int]


class RedriveInvocationsBody(Struct, frozen=True, kw_only=True):
    request_ids: RequestIds


class RedrivenInvocation(Struct, frozen=True, kw_only=True):
    request_id: str
    new_request_id: str


class RedrivenInvocations(Struct, frozen=True, kw_only=True):
    redriven: list[RedrivenInvocation]


class RedriveApi:
    def __init__(self, parts: Parts) -> None:
        self._redrive, self._identity = parts.redrive, parts.identity
        self._catalog, self._region = parts.catalog, parts.region

    def resources(self) -> list[Resource]:
        invocations = f"{BASE}/functions/{{function_urn}}/async-invocations"
        return [
            Resource(path=f"{BASE}/deliveries", methods={"GET": self.list_deliveries}),
            Resource(path=f"{BASE}/deliveries/redrive", methods={"POST": self.redrive_deliveries}),
            Resource(path=f"{invocations}/redrive", methods={"POST": self.redrive_invocations}),
        ]

    async def list_deliveries(self, call: Call) -> Reply:
        offset, limit = bounds(call, "limit", most=MAX_LIMIT, usual=100)
        found, count = await self._redrive.given_up(call.project, offset, limit)
        items = [self._item(owed) for owed in found]
        retrying = [self._item(owed) for owed in await self._redrive.retrying(call.project, limit)]
        marker = offset + len(items)
        return json_reply(DeliveryList(deliveries=items, count=count, next_marker=marker, retrying=retrying))

    async def redrive_deliveries(self, call: Call) -> Reply:
        project = call.project
        body = await call.read(RedriveDeliveriesBody)
        if body.all is bool(body.delivery_ids):
            raise InvalidField("delivery_ids", body.delivery_ids, "name some, or say all: true")
        done = self._redrive.deliver_all(project) if body.all else self._redrive.deliver(project, body.delivery_ids)
        return json_reply(RedrivenDeliveries(redriven=list(await done)))

    async def redrive_invocations(self, call: Call) -> Reply:
        urn = call.urn
        body = await call.read(RedriveInvocationsBody)
        done = [
            RedrivenInvocation(request_id=request_id, new_request_id=await self._redrive.invoke(urn, request_id))
            for request_id in body.request_ids
        ]
        return json_reply(RedrivenInvocations(redriven=done))

    def _item(self, owed: Owed) -> DeliveryItem:
        function = self._catalog.resolve(owed.function_id, LATEST)
        return DeliveryItem(
            delivery_id=owed.owed_id,
            request_id=self._identity.request_id(owed.key),
            func_urn=function.urn(self._region).function if function else "",
            condition=owed.condition,
            destination=owed.destination.destination,
            param=owed.destination.param,
            tries=owed.tries,
            error=owed.error,
            next_try="" if math.isinf(owed.due_at) else zoned_time(owed.due_at),
        )
