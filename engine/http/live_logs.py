"""Live logs of functions for clients.

A ``LogQueue`` holds what one client has not read yet: lines, and ends of attempts. A ``LogTail`` holds the newest lines
of a function while clients read them, and for a while after. A client that comes back, such as a browser tab that was
hidden, continues at the position where it stopped.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import ClassVar, NamedTuple

import anyio
from msgspec import UNSET, Struct, UnsetType

from engine.asgi.streaming import HEARTBEAT, Write, event
from engine.logs.feed import LINE, FunctionLines, LogBoard
from engine.logs.lines import Line
from engine.model import Function, Invocation, Outcome, State

LONGEST = 4096  #: characters of a message, and bytes of a result

#: Calls a listener with each attempt that ends, until the block ends.
FollowAttempts = Callable[[Callable[[Function, Invocation, Outcome], object]], AbstractContextManager[None]]
QUIET = 15.0  #: seconds without a line until a heartbeat is sent

LIMIT = 1 << 20  #: size of the lines in one queue, and in one tail, see ``FunctionLines``
KEPT = 600.0  #: seconds that a tail is kept without a reader
TAILS = 32  #: tails that are kept without a reader
DIGITS = 15  #: of a position


class AttemptEnd(Struct, frozen=True, kw_only=True):
    """End of an attempt, as replies describe it. Queues hold it like a batch of lines."""

    lines: ClassVar[tuple[Line, ...]] = ()

    request_id: str
    attempt: int
    mode: str
    source: str
    status: str  #: SUCCESS or FAIL
    seconds: float
    error_code: int
    error_message: str
    result: str | UnsetType = UNSET  #: begin of it; absent if the role of the caller may not see it

    @property
    def size(self) -> int:
        return LINE + len(self.error_message) + len(self.result or "")


def attempt_end(invocation: Invocation, outcome: Outcome, *, with_result: bool) -> AttemptEnd:
    """Return the end of an attempt for a client. Long messages and results are cut."""
    return AttemptEnd(
        request_id=invocation.request_id,
        attempt=invocation.attempt,
        mode=invocation.mode,
        source=invocation.source,
        status=State.SUCCESS if outcome.ok else State.FAIL,
        seconds=outcome.ended_at - outcome.started_at,
        error_code=outcome.code,
        error_message=outcome.message[:LONGEST],
        result=outcome.result[:LONGEST].decode("utf-8", "replace") if with_result else UNSET,
    )


Batch = FunctionLines | AttemptEnd


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

    async def pass_on(self, write: Write, send: Callable[[Batch], Awaitable[object]], pause: float = 0.0) -> None:
        """Call ``send`` with each batch until the queue has ended.

        If lines were dropped, write an event that tells their number. If nothing is added for ``QUIET`` seconds, write
        a heartbeat. Lines that come within ``pause`` seconds after others are sent together.
        """
        while True:
            with anyio.move_on_after(QUIET) as quiet:
                await self._changed.wait()
            if quiet.cancelled_caught:
                await write(HEARTBEAT)
                continue
            batches, dropped, last = tuple(self._waiting), self._dropped, self._ended
            self._changed.clear()
            self._waiting.clear()
            self._size = self._dropped = 0
            if dropped:
                await write(event("dropped", {"lines": dropped}))
            for batch in batches:
                await send(batch)
            if last:
                return
            if pause:
                await anyio.sleep(pause)


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

    def __init__(self, feed: LogBoard, kept: float = KEPT) -> None:
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
