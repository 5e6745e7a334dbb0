"""Deletion of stored outcomes after ``expires`` days. S3 has no expiry time for a single object, so the engine does it.

The due time is stored before the object is written. A crash between the two steps therefore leaves no object that is
never deleted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import anyio
import msgspec
import structlog

from engine import FunctiondError, ObjectMissing, PluginContext, StoreRefused
from plugins._shared.rows import decode_row
from plugins.obs.opening import StoreOpener

log = structlog.get_logger("functiond.plugins.obs")

TABLE = "expiring"
#: Seconds until the clock is read again, since it may be set, and until a failed deletion is retried.
HOUR = 3600.0


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
