"""What comes of a change stream, in batches: the next is on its way while one is being written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
from bson.raw_bson import RawBSONDocument
from msgspec import Struct
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import PyMongoError

#: Changes, of up to 16 MB each, that wait to be taken, beside those the client holds.
AHEAD = 10
#: Seconds that lie between two questions if a server doesn't wait with its answer when it has nothing to tell.
MIN_WAIT = 1.0


class Seen(Struct, frozen=True, kw_only=True):
    """A change; or that there was none, up to ``token``."""

    raw: bytes  #: empty: none
    token: Mapping[str, Any] | None  #: from where to go on; None if the server has told no such place yet


class Feed:
    def __init__(self, stream: AsyncChangeStream[RawBSONDocument], *, most: int, size: int, wait: float) -> None:
        self._stream, self._most, self._size, self._wait = stream, most, size, wait
        self._came: asyncio.Queue[Seen | None] = asyncio.Queue(AHEAD)
        self._ended = False
        #: Why it ended, unless the collection did.
        self.failure: PyMongoError | None = None

    async def run(self) -> None:
        """Until the stream ends."""
        try:
            while self._stream.alive:
                await self._step()
        except PyMongoError as error:
            self.failure = error
        await self._came.put(None)

    async def batch(self) -> list[Seen]:
        """What comes next and, within a short wait, after it. Empty at the end."""
        batch: list[Seen] = []
        size = await self._take(batch)
        with anyio.move_on_after(self._wait):
            while not self._ended and len(batch) < self._most and size < self._size:
                size += await self._take(batch)
        return batch

    async def _take(self, batch: list[Seen]) -> int:
        """One more, unless it has ended; gives its bytes."""
        seen = None if self._ended else await self._came.get()
        if seen is None:
            self._ended = True
            return 0
        batch.append(seen)
        return len(seen.raw)

    async def _step(self) -> None:
        soonest = anyio.current_time() + MIN_WAIT
        change = await self._stream.try_next()
        token = self._stream.resume_token
        await self._came.put(Seen(raw=bytes(change.raw) if change is not None else b"", token=token))
        if change is None and self._stream.alive:
            await anyio.sleep_until(soonest)
