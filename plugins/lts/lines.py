"""Log lines: their items in events, and their storage.

A log line has one or more items, which are encoded when the line is received. A row of the table contains several lines
that were received together. The lines of all streams may have ``limit`` bytes in total. While more than half of the
limit is used, lines that all triggers of their stream have read are deleted. Unread lines are kept for the stream's
retention. If they use the whole limit, new lines are refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import anyio
import msgspec
from msgspec import Struct

from engine import Overloaded, Store, Unavailable
from plugins._shared.batches import packed
from plugins._shared.rows import RowLogs, WriteRows

#: Bytes of ``logs`` in one event. The vendor documents 75 KB, read here as 75,000 bytes.
PIECE = 75_000
LABELS = 2048  #: bytes of labels, which each line may repeat
TABLE = "lines"
STATES = ":states"  #: writer of lines about states of invocations; no function has this name
ROW = 1 << 16  #: bytes of items in one row, unless one item has more


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    message: str
    time: int  #: milliseconds
    host_name: str
    ip: str
    path: str
    log_uid: str  #: id of the request that sent the line, or of the invocation that wrote it
    line_no: int
    labels: dict[str, Any] = {}


def are_short(labels: Mapping[str, Any]) -> bool:
    return len(msgspec.json.encode(labels)) <= LABELS


def encoded(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the JSON of each item. An item whose message is too long for an event is split into several items."""
    for item in items:
        text = msgspec.json.encode(item)
        if len(text) <= PIECE - 2:
            yield text
        elif len(item.message) > 1:
            middle = len(item.message) // 2
            parts = item.message[:middle], item.message[middle:]
            yield from encoded(msgspec.structs.replace(item, message=part) for part in parts)


def joined(items: Iterable[bytes]) -> Iterator[bytes]:
    """Yield JSON arrays that contain the encoded items in their order. Each array is short enough for one event."""
    for piece in packed(items, lambda item: len(item) + 1, PIECE - 2):
        yield b"[%b]" % b",".join(piece)


class Written(Struct, frozen=True, kw_only=True):
    """Lines of one stream that were received together."""

    stream: str
    items: Sequence[bytes]
    function: str = ""  #: writing function as package:name, or ``STATES``; empty if a client sent the lines
    hops: int = 0  #: number of functions in the chain that led to the lines; 0 if a client sent them


class Mark(NamedTuple):
    """Bytes and number of all lines of a stream up to some row, including deleted ones."""

    end: int
    lines: int


class Row(Struct, frozen=True, array_like=True):
    at: int
    end: int  #: bytes of all items of the stream up to this row's last, including deleted ones
    items: tuple[bytes, ...]
    function: str = ""
    hops: int = 0
    lines: int = 0  #: number of all lines of the stream up to this row's last, including deleted ones

    @property
    def mark(self) -> Mark:
        return Mark(self.end, self.lines)

    @property
    def before(self) -> Mark:
        return Mark(self.end - self.size, self.lines - len(self.items))

    @property
    def size(self) -> int:
        return sum(map(len, self.items))


class Lines:
    """Stored lines of all streams. A stream is given by the name that ``groups.stream_name`` returns."""

    def __init__(self, store: Store, now: Callable[[], float], limit: int) -> None:
        self._logs = RowLogs(store, TABLE, Row, now)
        self._limit = limit
        # Positions by stream:
        self._begins: dict[str, int] = {}  #: beginning of the stored rows, in bytes as ``Row.end`` counts them
        self._stored: dict[str, Mark] = {}  #: end of the rows on disk
        self._ends: dict[str, Mark] = {}  #: beginning of the next row, after rows that are being written
        self._writing = 0  #: bytes of rows that are being written
        self._loading = anyio.Lock()
        self.half_full = asyncio.Event()  #: set when more than half of the space is used

    async def load(self) -> None:
        for name in await self._logs.names():
            await self.open(name)

    async def open(self, stream: str) -> None:
        """Load a stream. Must be called before other methods use the stream."""
        async with self._loading:
            if stream not in self._ends:
                loaded = await self._logs.load(stream)
                self._begins[stream] = loaded[0].before.end if loaded else 0
                self._ends[stream] = self._stored[stream] = loaded[1].mark if loaded else Mark(0, 0)

    @property
    def streams(self) -> Sequence[str]:
        return list(self._ends)

    @property
    def size(self) -> int:
        return sum(mark.end for mark in self._stored.values()) - sum(self._begins.values()) + self._writing

    def end(self, stream: str) -> int:
        """Return the end of a stream's readable rows: the bytes of all rows so far, as ``Row.end`` counts them."""
        return self._stored[stream].end

    def span(self, stream: str) -> tuple[int, int]:
        """Return the number of a stream's first readable row, and that of the next row to be appended."""
        return self._logs.span(stream)

    async def append(self, written: Sequence[Written], write: WriteRows | None = None) -> None:
        """Store lines in one transaction, by ``write`` if it is given.

        Raises Overloaded if the lines of all streams would exceed ``limit``.
        """
        for entry in written:
            await self.open(entry.stream)
        size = sum(len(item) for entry in written for item in entry.items)
        self._admit(size)
        rows = [(entry.stream, self._row(entry, items)) for entry in written for items in packed(entry.items, len, ROW)]
        self._writing += size
        try:
            await self._logs.append(rows, write)
            self._stored.update((stream, row.mark) for stream, row in rows)
        finally:
            self._writing -= size
            if not self._writing:  # close the gap that a failed write leaves
                self._ends.update((stream, self._stored[stream]) for stream, _ in rows)
        if self.size > self._limit // 2:
            self.half_full.set()

    async def read(self, stream: str, position: int, max_bytes: int) -> tuple[list[tuple[int, Row]], int]:
        """Return a stream's rows from the number ``position`` on with their numbers, and the number of the next row.

        The rows have at most ``max_bytes`` in total, but at least one row is returned if one exists.
        """
        return await self._logs.read(stream, max(position, self.span(stream)[0]), max_bytes)

    async def seek(self, stream: str, moment: int) -> int:
        """Return the number of a stream's first row received at or after ``moment`` (milliseconds since the epoch)."""
        return await self._logs.seek(stream, moment)

    async def before(self, stream: str, position: int) -> Mark:
        """Return the bytes and number of all lines in rows before the number ``position``, including deleted ones."""
        end = self._stored[stream]
        rows, _ = await self.read(stream, position, 1)
        return rows[0][1].before if rows else end

    async def grown(self, stream: str, end: int) -> None:
        """Wait until ``Lines.end`` of the stream is at least ``end``."""
        while self._stored[stream].end < end:
            await self._logs.news(stream).wait()

    async def expire(self, stream: str, moment: int) -> None:
        await self._cut(stream, await self.seek(stream, moment))

    async def make_room(self, needed: Callable[[str], int | None]) -> None:
        """Delete rows that all triggers of their stream have read, if more than half of the space is used.

        ``needed`` returns the number of the first row of a stream to keep, or None to delete all its rows. Of states of
        invocations, the newer half stays.
        """
        self.half_full.clear()
        for stream in self.streams if self.size > self._limit // 2 else ():
            reached = needed(stream)
            await self._cut(stream, await self._first_to_keep(stream) if reached is None else reached)

    async def drop(self, stream: str) -> None:
        """Delete all lines of a stream.

        An empty row stays, so that the numbers of rows and lines that functions write later do not begin anew: triggers
        that have read the stream would skip these rows.
        """
        await self.open(stream)
        if self._ends[stream].end:
            with suppress(Unavailable):  # a full disk; then the last row stays
                await self._logs.append([(stream, self._row(Written(stream=stream, items=()), ()))])
        await self._cut(stream, self.span(stream)[1])

    def _admit(self, size: int) -> None:
        used = self.size
        if used + size > self._limit:
            self.half_full.set()
            held = f"{used} of {self._limit} bytes (plugins.lts.size)"
            raise Overloaded(f"the log streams hold {held}: retry after functions have read some", retry_after=5)

    def _row(self, written: Written, items: Sequence[bytes]) -> Row:
        end, lines = self._ends[written.stream]
        row = Row(0, end + sum(map(len, items)), tuple(items), written.function, written.hops, lines + len(items))
        self._ends[written.stream] = row.mark
        return row

    async def _first_to_keep(self, stream: str) -> int:
        begin, next_ = self.span(stream)
        newest, _ = await self.read(stream, next_ - 1, 1)
        return (begin + next_) // 2 if newest and newest[-1][1].function == STATES else next_

    async def _cut(self, stream: str, position: int) -> None:
        self._begins[stream] = (await self.before(stream, position)).end
        await self._logs.cut(stream, position)
