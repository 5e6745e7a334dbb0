"""Destination OBS: each outcome is stored as an object. Repeated deliveries of one outcome write the same object.

The engine deletes the object after ``expires`` days, since S3 has no expiry time for a single object. Objects that
expire while the engine is down are deleted at its next start. The due time is stored before the object is written. A
crash between the two steps therefore leaves no object that is never deleted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated

import anyio
import msgspec
import structlog
from msgspec import Meta, Struct

from engine import DeliveryContext, FunctiondError, ObjectMissing, PendingDelivery, PluginContext, StoreRefused
from plugins._shared.outcomes import context_of
from plugins._shared.rows import decode_row
from plugins.obs.opening import StoreOpener
from plugins.obs.options import Bucket

log = structlog.get_logger("functiond.plugins.obs")

TABLE = "expiring"
#: Seconds until the clock is read again, since it may be set, and until a failed deletion is retried.
HOUR = 3600.0
DAY = 86_400.0


class Expiry:
    def __init__(self, opener: StoreOpener) -> None:
        self._opener = opener
        self._scheduled = asyncio.Event()

    async def schedule(self, context: PluginContext, bucket: str, key: str, due: float) -> None:
        """Store the time at which an object is to be deleted. The earliest of several times for an object counts."""
        row = f"{due:014.2f} {bucket} {key}"
        await context.store.write(TABLE, {row: msgspec.json.encode((due, bucket, key))})
        self._scheduled.set()

    async def run(self, context: PluginContext) -> None:
        while True:
            self._scheduled.clear()
            wait = await self._delete_due(context)
            if wait is None:
                await self._scheduled.wait()
            else:
                await anyio.sleep(wait)  # objects that are scheduled meanwhile are due in a day at the earliest

    async def _delete_due(self, context: PluginContext) -> float | None:
        """Delete objects that are due, and return the seconds until the next check.

        The result is at most an hour, or None if no deletion is scheduled. It is an hour after a failed deletion. The
        log has one line for all refusals by a bucket.
        """
        row, refused = "", set[str]()
        while rows := await context.store.scan(TABLE, after=row, limit=1):
            [(row, value)] = rows
            due, bucket, key = decode_row(TABLE, row, value, tuple[float, str, str])
            if (left := due - context.clock.expiry.now()) > 0:
                return HOUR if refused else min(left, HOUR)
            try:
                await self._delete(bucket, key)
            except FunctiondError as error:
                if bucket not in refused:
                    log.warning("expired object not deleted", bucket=bucket, key=key, problem=str(error))
                if not isinstance(error, StoreRefused):
                    return HOUR
                refused.add(bucket)
            else:
                await context.store.write(TABLE, delete=[row])
        return HOUR if refused else None

    async def _delete(self, bucket: str, key: str) -> None:
        with suppress(ObjectMissing):  # the object, or its whole bucket, was deleted already
            async with self._opener.open() as store:
                await store.delete(bucket, key)


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
        hops = context.hop()
        if self._param.expires:
            due = plugin.clock.now() + self._param.expires * DAY
            await plugin.service.expiry.schedule(plugin, bucket, key, due)
        plugin.service.outcomes.add(bucket)
        async with plugin.service.opener.open() as store:
            await store.write(bucket, key, record, hops)

    def _key(self, pending: PendingDelivery, record: bytes) -> str:
        request_id = context_of(record).request_id
        prefix = self._param.prefix
        return f"{prefix}{'/' if prefix and not prefix.endswith('/') else ''}{request_id}-{pending.delivery_id}.json"
