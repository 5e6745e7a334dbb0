"""Deletes objects whose days are over: the stores that speak S3 know no such time for a single object.

When one is due is written before the object is, so that none is kept for ever by a crash in between.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import msgspec
import structlog

from engine import FunctiondError, ObjectMissing, PluginContext, StoreRefused
from plugins.obs.opening import StoreOpener

log = structlog.get_logger("functiond.plugins.obs")

TABLE = "expiring"
#: Seconds until the clock, which may be set, is looked at again, and until a store that failed is asked again.
HOUR = 3600.0


class Expiry:
    def __init__(self, opener: StoreOpener) -> None:
        self._opener = opener
        self._news = asyncio.Event()

    async def note(self, context: PluginContext, bucket: str, key: str, due: float) -> None:
        """Delete an object then. Of what is noted twice, the first time counts."""
        row = f"{due:014.2f} {bucket} {key}"
        await context.store.write(TABLE, {row: msgspec.json.encode((due, bucket, key))})
        self._news.set()

    async def run(self, context: PluginContext) -> None:
        while True:
            self._news.clear()
            wait = await self._delete_due(context)
            with anyio.move_on_after(wait):
                await self._news.wait()

    async def _delete_due(self, context: PluginContext) -> float | None:
        """Seconds until there is something to do, or None. What a bucket refuses keeps nothing of the others."""
        row, refusing = "", set[str]()
        while rows := await context.store.scan(TABLE, after=row, limit=1):
            [(row, value)] = rows
            due, bucket, key = msgspec.json.decode(value, type=tuple[float, str, str])
            if (left := due - context.clock.now()) > 0:
                return min(left, HOUR)
            if bucket in refusing:
                continue
            try:
                await self._delete(bucket, key)
            except FunctiondError as error:
                log.warning("object not deleted when its days were over", bucket=bucket, key=key, problem=str(error))
                if not isinstance(error, StoreRefused):
                    return HOUR
                refusing.add(bucket)
            else:
                await context.store.write(TABLE, delete=[row])
        return HOUR if refusing else None

    async def _delete(self, bucket: str, key: str) -> None:
        with suppress(ObjectMissing):  # or its bucket: who deleted that took it along
            async with self._opener.open() as store:
                await store.delete(bucket, key)
