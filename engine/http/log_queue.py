"""Queue of log lines for one reader of a live log. If the reader is too slow, the oldest lines are dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from engine.logs.feed import FunctionLines

LIMIT = 1 << 20  #: characters of text in one queue


class Taken(NamedTuple):
    batches: tuple[FunctionLines, ...]
    dropped: int  #: lines dropped before these batches, because the queue was full
    last: bool  #: True: the queue has ended


class LogQueue:
    def __init__(self, request_id: str = "", limit: int = LIMIT) -> None:
        self._request_id, self._limit = request_id, limit
        self._waiting: deque[FunctionLines] = deque()
        self._size = self._dropped = 0
        self._ended = False
        self._changed = asyncio.Event()

    def put(self, batch: FunctionLines) -> None:
        """Add lines, unless the queue is for another request. Drop the oldest lines if the queue is full.

        The method can be subscribed to a log feed.
        """
        if self._request_id and batch.request_id != self._request_id:
            return
        self._waiting.append(batch)
        self._size += _size(batch)
        while self._size > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._size -= _size(oldest)
            self._dropped += len(oldest.lines)
        self._changed.set()

    def end(self) -> None:
        """End the queue. ``put`` may not be called afterwards."""
        self._ended = True
        self._changed.set()

    async def take(self) -> Taken:
        """Wait until the queue has lines or has ended. Remove and return all lines."""
        await self._changed.wait()
        self._changed.clear()
        taken = Taken(tuple(self._waiting), self._dropped, self._ended)
        self._waiting.clear()
        self._size = self._dropped = 0
        return taken


def _size(batch: FunctionLines) -> int:
    return sum(len(line.text) for line in batch.lines)
