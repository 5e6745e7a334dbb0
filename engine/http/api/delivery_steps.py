"""Redrive and removal of deliveries: of those that a request lists, or of all given-up ones that match a filter.

A request with ``limit`` is one step. Its reply has ``next_after``, from which the next request goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.errors import InvalidField
from engine.http.api.routing import BASE, Call, Resource, own_urn
from engine.model import DestinationSpec
from engine.model.limits import Label, Param
from engine.pipeline.failed_deliveries import DeliveryScope, DeliveryStep, FailedDeliveries
from engine.pipeline.redrive import Redrive

STEP = 500  #: deliveries that one step covers
Id = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Ids = Annotated[list[Id], Meta(max_length=STEP)]
Limit = Annotated[int, Meta(ge=1, le=STEP)]


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


class DeliveryStepsApi:
    def __init__(self, redrive: Redrive, deliveries: FailedDeliveries, region: str) -> None:
        self._redrive, self._deliveries, self._region = redrive, deliveries, region

    def resources(self) -> list[Resource]:
        return [
            Resource(path=f"{BASE}/deliveries/redrive", methods={"POST": self.redrive}),
            Resource(path=f"{BASE}/deliveries/discard", methods={"POST": self.discard}),
        ]

    async def redrive(self, call: Call) -> Reply:
        body = await call.read(RedriveDeliveriesBody)
        if not _is_all(body):
            done = await self._redrive.deliver(call.project, body.delivery_ids, redirect=body.redirect)
            return json_reply(RedrivenDeliveries(redriven=[*done]))
        ids, after = await self._steps(call, body, self._deliveries.redrive)
        return json_reply(RedrivenDeliveries(redriven=ids, next_after=after))

    async def discard(self, call: Call) -> Reply:
        body = await call.read(DiscardDeliveriesBody)
        if not _is_all(body):
            done = await self._deliveries.discard_these(self._scope(call, body), body.delivery_ids)
            return json_reply(DiscardedDeliveries(discarded=[*done]))
        ids, after = await self._steps(call, body, self._deliveries.discard)
        return json_reply(DiscardedDeliveries(discarded=ids, next_after=after))

    async def _steps(
        self,
        call: Call,
        body: ChosenDeliveries,
        step: Callable[[DeliveryScope, int, int], Awaitable[DeliveryStep]],
    ) -> tuple[list[int], int | UnsetType]:
        """Make one step, or all if the request sets no limit. Return the ids, and ``next_after`` of one step."""
        scope = self._scope(call, body)
        if body.limit is not UNSET:
            one = await step(scope, body.after, body.limit)
            return [*one.delivery_ids], one.after
        ids: list[int] = []
        after: int = body.after
        while True:
            one = await step(scope, after, STEP)
            ids += one.delivery_ids
            after = one.after
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


def _is_all(body: ChosenDeliveries) -> bool:
    """Return whether the request applies to all deliveries that match. Raises InvalidField if it is ambiguous."""
    if body.all is bool(body.delivery_ids):
        raise InvalidField("delivery_ids", body.delivery_ids, "list some ids, or set all to true")
    if not body.all and (body.function or body.destination or body.param or body.after or body.limit is not UNSET):
        raise InvalidField("all", False, "must be true beside function, destination, param, limit or after")
    if body.param and not body.destination:
        raise InvalidField("destination", "", "name the kind of the destination whose param is given")
    return body.all
