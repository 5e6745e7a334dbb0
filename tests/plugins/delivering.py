"""Deliveries of outcomes to a plugin's destination, without the worker of the engine."""

from __future__ import annotations

from msgspec import Struct

from engine import PluginContext
from engine.model import DestinationSpec, PendingDelivery, Request
from engine.protocols import Destination
from tests.support.triggering import House


class Delivering(Struct, frozen=True):
    """Context that the engine gives to a delivery."""

    plugin: PluginContext
    traceparent: str = ""

    def hop(self) -> int:
        return 1

    async def accept(self, request: Request) -> str:
        raise NotImplementedError


async def deliver(
    place: House, kind: str, destination: Destination, record: bytes, *, number: int = 7, traceparent: str = ""
) -> None:
    """Deliver ``record`` once, as the delivery with this number."""
    spec = DestinationSpec(destination=kind)
    pending = PendingDelivery(
        delivery_id=number, key=1, function_id=1, condition="success", destination=spec, due_at=0.0
    )
    await destination.deliver(pending, record, Delivering(place.engine.plugins.context_for(kind), traceparent))
