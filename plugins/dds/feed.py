"""Reader of a change stream in batches. The next batch is read while one is being accepted by the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
from bson.raw_bson import RawBSONDocument
from msgspec import Struct
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import PyMongoError

#: Changes, of up to 16 MiB each, that are read ahead, in addition to those in the client's buffer.
AHEAD = 10
#: Minimum seconds between two requests without changes, for servers that answer these at once.
MIN_WAIT = 1.0


class Seen(Struct, frozen=True, kw_only=True):
    """Item read from a change stream: a change, or only the position up to which there are no changes."""

    raw: bytes  #: BSON of the change; empty: no change
    token: Mapping[str, Any] | None  #: position after the change, unless the server has not sent one yet


class Feed:
    """Queue of the items that were read from a change stream and are not yet in a batch."""

    def __init__(self, stream: AsyncChangeStream[RawBSONDocument], *, most: int, size: int, wait: float) -> None:
        self._stream, self._most, self._size, self._wait = stream, most, size, wait
        self._queue: asyncio.Queue[Seen | None] = asyncio.Queue(AHEAD)
        self._ended = False
        #: error that ended the stream, unless the collection ended
        self.failure: PyMongoError | None = None

    async def run(self) -> None:
        """Read the change stream into the queue until the stream ends.

        An error of the client library is stored in ``failure``, not raised.
        """
        try:
            while self._stream.alive:
                await self._step()
        except PyMongoError as error:
            self.failure = error
        await self._queue.put(None)

    async def batch(self) -> list[Seen]:
        """Wait for the next item, and return it with those that follow shortly after it.

        Return an empty list at the stream's end.
        """
        batch: list[Seen] = []
        size = await self._take(batch)
        with anyio.move_on_after(self._wait):
            while not self._ended and len(batch) < self._most and size < self._size:
                size += await self._take(batch)
        return batch

    async def _take(self, batch: list[Seen]) -> int:
        """Move the next item from the queue to ``batch``, unless the stream has ended.

        Return the item's size in bytes, or 0 if the stream has ended.
        """
        seen = None if self._ended else await self._queue.get()
        if seen is None:
            self._ended = True
            return 0
        batch.append(seen)
        return len(seen.raw)

    async def _step(self) -> None:
        soonest = anyio.current_time() + MIN_WAIT
        change = await self._stream.try_next()
        token = self._stream.resume_token
        await self._queue.put(Seen(raw=bytes(change.raw) if change is not None else b"", token=token))
        if change is None and self._stream.alive:
            await anyio.sleep_until(soonest)
