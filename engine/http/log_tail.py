"""Newest log lines of functions, kept in memory while a client reads them, and for a while after.

A client that comes back, such as a browser tab that was hidden, continues at the position where it stopped.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from engine.logs.feed import FunctionLines, LogFeed
from engine.logs.lines import Line

LIMIT = 1 << 20  #: size of the lines in one tail, see ``FunctionLines``
KEPT = 600.0  #: seconds that a tail is kept without a reader
TAILS = 32  #: tails that are kept without a reader
DIGITS = 15  #: of a position


class Lines(NamedTuple):
    request_id: str
    lines: Sequence[Line]


class LogTail:
    """Newest lines of one function. A position is the number of lines that were added before a line."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.end = 0  #: position of the next line
        self._name, self._limit = secrets.token_hex(6), limit
        self._batches: list[FunctionLines] = []
        self._starts: list[int] = []  #: positions of their first lines
        self._dropped = 0  #: batches at the begin of the lists that are no longer kept
        self._size = 0
        self._changed = asyncio.Event()

    @property
    def start(self) -> int:
        """Position of the oldest line that is kept."""
        return self._starts[self._dropped] if self._starts else self.end

    def put(self, batch: FunctionLines) -> None:
        """Add the lines of a batch, and drop the oldest batches if the tail is full."""
        self._batches.append(batch)
        self._starts.append(self.end)
        self.end += len(batch.lines)
        self._size += batch.size
        while self._size > self._limit and self._dropped < len(self._batches) - 1:
            self._size -= self._batches[self._dropped].size
            self._dropped += 1
        if self._dropped > len(self._batches) // 2:  # rarely, because the kept ones are moved
            del self._batches[: self._dropped], self._starts[: self._dropped]
            self._dropped = 0
        self.wake()

    def take(self, position: int, limit: int) -> tuple[list[Lines], int]:
        """Return up to ``limit`` lines from a position on that is kept, and the position after them."""
        taken: list[Lines] = []
        last = min(position + limit, self.end)
        index = bisect_right(self._starts, position) - 1
        while position < last:
            batch, start = self._batches[index], self._starts[index]
            lines = batch.lines[position - start : last - start]
            taken.append(Lines(batch.request_id, lines))
            position, index = position + len(lines), index + 1
        return taken, position

    async def wait(self) -> None:
        """Wait until lines are added, or ``wake`` is called."""
        await self._changed.wait()

    def wake(self) -> None:
        """End the waiting of all readers."""
        self._changed.set()
        self._changed = asyncio.Event()

    def mark(self, position: int) -> str:
        """Return a position as a text from which ``read`` returns it."""
        return f"{self._name}-{position}"

    def read(self, mark: str) -> int | None:
        """Return the position in a text; None if it is not a position of this tail."""
        name, _, number = mark.partition("-")
        if name != self._name or not number.isascii() or not number.isdigit() or len(number) > DIGITS:
            return None
        return min(int(number), self.end)


class LogTails:
    """Tails of the functions whose logs are read."""

    def __init__(self, feed: LogFeed, kept: float = KEPT) -> None:
        self._feed, self._kept = feed, kept
        self._open: dict[int, tuple[LogTail, ExitStack]] = {}  #: by function id
        self._readers: dict[int, int] = {}
        self._unread: dict[int, asyncio.TimerHandle] = {}  #: ends of tails without a reader, oldest first

    @contextmanager
    def reading(self, function_id: int) -> Iterator[LogTail]:
        """Give the tail of a function, which receives its lines until the block ends, and ``kept`` seconds longer."""
        if function_id in self._unread:
            self._unread.pop(function_id).cancel()
        if function_id not in self._open:
            tail, stack = LogTail(), ExitStack()
            stack.enter_context(self._feed.subscribed(tail.put, function_id=function_id))
            self._open[function_id] = tail, stack
        self._readers[function_id] = self._readers.get(function_id, 0) + 1
        try:
            yield self._open[function_id][0]
        finally:
            self._readers[function_id] -= 1
            if not self._readers[function_id]:
                self._leave(function_id)

    def wake(self) -> None:
        """End the waiting of all readers."""
        for tail, _ in self._open.values():
            tail.wake()

    def _leave(self, function_id: int) -> None:
        del self._readers[function_id]
        loop = asyncio.get_running_loop()
        self._unread[function_id] = loop.call_later(self._kept, self._close, function_id)
        if len(self._unread) > TAILS:
            self._close(next(iter(self._unread)))

    def _close(self, function_id: int) -> None:
        self._unread.pop(function_id).cancel()
        self._open.pop(function_id)[1].close()
