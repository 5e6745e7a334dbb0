"""Destination OBS: each outcome is stored as an object. Repeated deliveries of one outcome write the same object.

The engine deletes the object after ``expires`` days. Objects that expire while the engine is down are deleted at its
next start.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from engine import DeliveryContext, PendingDelivery
from plugins._shared.outcomes import context_of
from plugins.obs.options import Bucket

DAY = 86_400.0


class ObsParam(Struct, frozen=True, kw_only=True):
    bucket: Annotated[Bucket, Meta(examples=["outcomes"], extra={"fixed": False})]
    prefix: Annotated[
        str, Meta(max_length=900, examples=["orders/"], extra={"help": "Beginning of the keys of objects."})
    ] = ""
    expires: Annotated[
        int,
        Meta(ge=0, le=365, title="Lifetime (days)", extra={"help": "Objects are deleted after it. 0: never."}),
    ] = 0


class ObsDestination:
    def __init__(self, param: ObsParam) -> None:
        self._param = param

    async def deliver(self, pending: PendingDelivery, record: bytes, context: DeliveryContext) -> None:
        plugin, bucket, key = context.plugin, self._param.bucket, self._key(pending, record)
        if self._param.expires:
            due = plugin.clock.now() + self._param.expires * DAY
            await plugin.service.expiry.schedule(plugin, bucket, key, due)
        async with plugin.service.opener.open() as store:
            await store.write(bucket, key, record)

    def _key(self, pending: PendingDelivery, record: bytes) -> str:
        request_id = context_of(record).request_id
        prefix = self._param.prefix
        return f"{prefix}{'/' if prefix and not prefix.endswith('/') else ''}{request_id}-{pending.delivery_id}.json"
