"""Queue of log lines for one client that reads a live log. If it reads too slowly, the oldest lines are dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import anyio

from engine.asgi.streaming import HEARTBEAT, Write, event
from engine.http.attempt_ends import AttemptEnd
from engine.logs.feed import FunctionLines

QUIET = 15.0  #: seconds without a line until a heartbeat is sent
LIMIT = 1 << 20  #: size of the lines in one queue, see ``FunctionLines``

Batch = FunctionLines | AttemptEnd


class Taken(NamedTuple):
    batches: tuple[Batch, ...]
    dropped: int  #: lines dropped before these batches, because the queue was full
    last: bool  #: True: the queue has ended


class LogQueue:
    def __init__(self, request_id: str = "", limit: int = LIMIT) -> None:
        self._request_id, self._limit = request_id, limit
        self._waiting: deque[Batch] = deque()
        self._size = self._dropped = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, batch: Batch) -> None:
        """Add the lines of a batch, and drop the oldest batches if the queue is full.

        A queue for one request ignores lines of other requests. A log feed can call this method for each new batch.
        """
        if self._request_id and batch.request_id != self._request_id:
            return
        self._waiting.append(batch)
        self._size += batch.size
        while self._size > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._size -= oldest.size
            self._dropped += len(oldest.lines)
        self._changed.set()

    def end(self) -> None:
        """Mark the queue as ended. Lines that are put afterwards may be lost."""
        self._ended = True
        self._changed.set()

    async def take(self) -> Taken:
        """Wait until lines were added or the queue has ended. Remove and return all lines in the queue."""
        await self._changed.wait()
        self._changed.clear()
        taken = Taken(tuple(self._waiting), self._dropped, self._ended)
        self._waiting.clear()
        self._size = self._dropped = 0
        return taken

    async def pass_on(self, write: Write, send: Callable[[Batch], Awaitable[object]], pause: float = 0.0) -> None:
        """Call ``send`` with each batch until the queue has ended.

        If lines were dropped, write an event that tells their number. If nothing is added for ``QUIET`` seconds, write
        a heartbeat. Lines that come within ``pause`` seconds after others are sent together.
        """
        last = False
        while not last:
            taken = None
            with anyio.move_on_after(QUIET):
                taken = await self.take()
            if taken is None:
                await write(HEARTBEAT)
                continue
            if taken.dropped:
                await write(event("dropped", {"lines": taken.dropped}))
            for batch in taken.batches:
                await send(batch)
            last = taken.last
            if pause and not last:
                await anyio.sleep(pause)
