"""The lines of all streams on their way to functions: rows of several each, on disk once this says so.

All together may have ``limit`` bytes. While more than half of that is in use, what no trigger waits for goes; what is
waited for is never dropped before its time is over, so that new lines may have to be refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

import anyio
from msgspec import Struct

from engine import Overloaded, Store
from plugins._shared.row_log import RowLogs

TABLE = "lines"
ROW = 1 << 16  #: bytes of items, after which the next row begins


class Written(Struct, frozen=True, kw_only=True):
    """Lines of one stream that came together."""

    stream: str
    items: Sequence[bytes]
    function: str = ""  #: that wrote them, as package:name; empty if they were sent
    hops: int = 0  #: how many functions led to them; 0 if they were sent


class Row(Struct, frozen=True, array_like=True):
    at: int
    end: int  #: bytes of the stream's items up to this row's last, with those that are gone
    items: tuple[bytes, ...]
    function: str = ""
    hops: int = 0

    @property
    def size(self) -> int:
        return sum(map(len, self.items))


class Lines:
    """Streams go by the names that ``groups.stream_name`` gives them."""

    def __init__(self, store: Store, now: Callable[[], float], limit: int) -> None:
        self._logs = RowLogs(store, TABLE, Row, now)
        self._limit = limit
        # By streams, in the bytes that ``Row.end`` counts:
        self._begins: dict[str, int] = {}  #: where what is kept begins
        self._seen: dict[str, int] = {}  #: where what is on disk ends
        self._ends: dict[str, int] = {}  #: where the next row begins, behind those on their way to disk
        self._coming = 0  #: bytes of these
        self._loading = anyio.Lock()
        self.pressed = asyncio.Event()  #: set when more than half of the room is in use

    async def load(self) -> None:
        for name in await self._logs.names():
            await self.know(name)

    async def know(self, stream: str) -> None:
        """Needed before anything else is asked of a stream."""
        async with self._loading:
            if not self._logs.is_loaded(stream):
                found = await self._logs.load(stream)
                self._begins[stream] = found[0].end - found[0].size if found else 0
                self._ends[stream] = self._seen[stream] = found[1].end if found else 0

    @property
    def streams(self) -> Sequence[str]:
        return list(self._ends)

    @property
    def size(self) -> int:
        return sum(self._seen.values()) - sum(self._begins.values()) + self._coming

    def end(self, stream: str) -> int:
        """Where what can be read ends, in bytes."""
        return self._seen[stream]

    def span(self, stream: str) -> tuple[int, int]:
        """The number of the first row that may be read, and of the next one to come."""
        return self._logs.span(stream)

    async def append(self, written: Sequence[Written]) -> None:
        """All in one transaction. Raises Overloaded if there is no room."""
        for one in written:
            await self.know(one.stream)
        size = sum(len(item) for one in written for item in one.items)
        self._admit(size)
        rows = [(one.stream, self._row(one, items)) for one in written for items in _chunks(one.items)]
        self._coming += size
        try:
            await self._logs.append(rows)
            self._seen.update((stream, row.end) for stream, row in rows)
        finally:
            self._coming -= size
            if not self._coming:  # what failed leaves no gap
                self._ends.update((stream, self._seen[stream]) for stream, _ in rows)
        if self.size > self._limit // 2:
            self.pressed.set()

    async def read(self, stream: str, position: int, max_bytes: int) -> tuple[list[Row], int]:
        """Rows from there on, at least one if there is one; and where to go on."""
        rows, position = await self._logs.read(stream, position, max_bytes)
        return [row for _, row in rows], position

    async def seek(self, stream: str, moment: int) -> int:
        """The number of the first row from this time (milliseconds) on."""
        return await self._logs.seek(stream, moment)

    async def grown(self, stream: str, end: int) -> None:
        """Return once so much can be read."""
        while self._seen[stream] < end:
            await self._logs.news(stream).wait()

    async def expire(self, stream: str, moment: int) -> None:
        await self._cut(stream, await self.seek(stream, moment))

    async def make_room(self, needed: Callable[[str], int | None]) -> None:
        """Drop what comes before the row that is still needed of each stream; None: nothing is."""
        self.pressed.clear()
        for stream in self.streams if self.size > self._limit // 2 else ():
            reached = needed(stream)
            await self._cut(stream, self.span(stream)[1] if reached is None else reached)

    async def drop(self, stream: str) -> None:
        """All that is kept of it."""
        await self.know(stream)
        await self._logs.purge(stream)
        self._begins[stream] = self._seen[stream]

    def _admit(self, size: int) -> None:
        used = self.size
        if used + size > self._limit:
            self.pressed.set()
            room = f"{used} of {self._limit} bytes (plugins.lts.size)"
            raise Overloaded(f"the log streams hold {room}: functions must take some first", retry_after=5)

    def _row(self, written: Written, items: tuple[bytes, ...]) -> Row:
        end = self._ends[written.stream] = self._ends[written.stream] + sum(map(len, items))
        return Row(at=0, end=end, items=items, function=written.function, hops=written.hops)

    async def _cut(self, stream: str, position: int) -> None:
        end = self._seen[stream]
        rows, _ = await self.read(stream, position, 1)
        self._begins[stream] = rows[0].end - rows[0].size if rows else end
        await self._logs.cut(stream, position)


def _chunks(items: Iterable[bytes]) -> Iterator[tuple[bytes, ...]]:
    chunk, size = list[bytes](), 0
    for item in items:
        chunk.append(item)
        size += len(item)
        if size >= ROW:
            yield tuple(chunk)
            chunk, size = [], 0
    if chunk:
        yield tuple(chunk)
