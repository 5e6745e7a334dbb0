"""What one reader of live logs has not read yet: bounded, since a slow reader must not hold the lines of all."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from engine.logs.feed import FunctionLines

LIMIT = 1 << 20  #: characters of text


class Taken(NamedTuple):
    told: tuple[FunctionLines, ...]
    dropped: int  #: lines that were too many, before these
    last: bool  #: nothing will follow


class LogQueue:
    def __init__(self, request_id: str = "", limit: int = LIMIT) -> None:
        self._request_id, self._limit = request_id, limit
        self._waiting: deque[FunctionLines] = deque()
        self._size = self._dropped = 0
        self._ended = False
        self._news = asyncio.Event()

    def put(self, told: FunctionLines) -> None:
        """A listener of a feed; takes the lines of its request, or all."""
        if self._request_id and told.request_id != self._request_id:
            return
        self._waiting.append(told)
        self._size += _size(told)
        while self._size > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._size -= _size(oldest)
            self._dropped += len(oldest.lines)
        self._news.set()

    def end(self) -> None:
        """Nothing more will be put."""
        self._ended = True
        self._news.set()

    async def take(self) -> Taken:
        """All that is there, once there is something."""
        await self._news.wait()
        self._news.clear()
        taken = Taken(tuple(self._waiting), self._dropped, self._ended)
        self._waiting.clear()
        self._size = self._dropped = 0
        return taken


def _size(told: FunctionLines) -> int:
    return sum(len(line.text) for line in told.lines)
