"""The records of embedded streams, as rows of the plugin's own tables: numbered without repetition, read in order.

The last record of a partition stays on disk past its time, unseen: the numbers go on from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec
from msgspec import Struct

from engine import Store
from plugins.dis.access import Entry, Record

TABLE = "records"
STEP = 1000  #: rows that are read or purged at a time
FIRST_STEP = 8  #: rows that are read before anything is known of their size

Place = tuple[str, int]  #: stream id, number of the partition


class _Row(Struct, frozen=True, array_like=True):
    at: int  #: milliseconds
    key: str | None
    data: bytes


class _Tail(Struct, kw_only=True, eq=False):
    """What is known of a partition without reading it."""

    next: int = 0  #: sequence number
    earliest: int = 0  #: what may be read begins here
    last: int = 0  #: milliseconds: times do not go back within a partition
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def tell(self) -> None:
        told, self.news = self.news, asyncio.Event()
        told.set()


class Records:
    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._tails: dict[Place, _Tail] = {}

    async def load(self, place: Place) -> None:
        newest = await self._store.scan(TABLE, after=_start(place), until=_end(place), limit=1, newest=True)
        tail = self._tails[place] = _Tail()
        if newest:
            [(key, value)] = newest
            [(first, _)] = await self._store.scan(TABLE, after=_start(place), until=_end(place), limit=1)
            tail.next, tail.earliest = _sequence(key) + 1, _sequence(first)
            tail.last = msgspec.msgpack.decode(value, type=_Row).at

    def forget(self, place: Place) -> None:
        """Whoever waits for it is told."""
        if tail := self._tails.pop(place, None):
            tail.tell()

    def span(self, place: Place) -> tuple[int, int]:
        """The first sequence number that may be read, and that of the next record."""
        tail = self._tail(place)
        return tail.earliest, tail.next

    def news(self, place: Place) -> asyncio.Event:
        """Set once there is something new."""
        return self._tail(place).news

    def tell(self, place: Place) -> None:
        self._tail(place).tell()

    async def append(self, stream_id: str, entries: Iterable[tuple[int, Entry]]) -> Sequence[int]:
        """All in one transaction, by the numbers of their partitions; gives their sequence numbers."""
        rows, sequences, tails, now = dict[str, bytes](), list[int](), dict[int, _Tail](), int(self._now() * 1000)
        for number, entry in entries:
            tail = tails[number] = self._tail((stream_id, number))
            tail.last = max(tail.last, now)
            row = _Row(at=tail.last, key=entry.partition_key, data=entry.data)
            rows[_key((stream_id, number), tail.next)] = msgspec.msgpack.encode(row)
            sequences.append(tail.next)
            tail.next += 1
        await self._store.write(TABLE, rows)
        for tail in tails.values():
            tail.tell()
        return sequences

    async def read(self, place: Place, position: int, max_bytes: int) -> tuple[list[Record], int]:
        """From there on, as many as fit, and at least one if there is one; and where to go on."""
        records, size, step = list[Record](), 0, FIRST_STEP
        while True:
            rows = await self._store.scan(TABLE, after=_before(place, position), until=_end(place), limit=step)
            for key, value in rows:
                row = msgspec.msgpack.decode(value, type=_Row)
                size += len(row.data)
                if records and size > max_bytes:
                    return records, position
                sequence = _sequence(key)
                records.append(
                    Record(sequence_number=str(sequence), data=row.data, partition_key=row.key, timestamp=row.at)
                )
                position = sequence + 1
            if len(rows) < step or size >= max_bytes or len(records) >= STEP * 10:
                return records, position
            step = min(STEP, max(1, (max_bytes - size) * len(records) // max(size, 1)))

    async def seek(self, place: Place, moment: int) -> int:
        """The sequence number of the first record from this time (milliseconds) on."""
        low, high = self.span(place)
        while low < high:
            middle = (low + high) // 2
            rows = await self._store.scan(TABLE, after=_before(place, middle), until=_end(place), limit=1)
            if rows and msgspec.msgpack.decode(rows[0][1], type=_Row).at < moment:
                low = _sequence(rows[0][0]) + 1
            else:
                high = middle
        return low

    async def expire(self, place: Place, moment: int) -> None:
        """What is older than this time (milliseconds) is not read any more."""
        tail = self._tail(place)
        tail.earliest = await self.seek(place, moment)
        await self._purge(_start(place), _key(place, min(tail.earliest, tail.next - 1)) if tail.next else "")

    async def purge(self, stream_id: str) -> None:
        """All of a stream that is gone."""
        await self._purge(f"{stream_id}/", f"{stream_id}0")

    async def streams(self) -> list[str]:
        """Ids of the streams that have rows."""
        found, after = list[str](), ""
        while rows := await self._store.scan(TABLE, after=after, limit=1):
            found.append(rows[0][0].partition("/")[0])
            after = f"{found[-1]}0"
        return found

    async def _purge(self, after: str, until: str) -> None:
        while until and await self._store.purge(TABLE, until, after=after, limit=STEP) == STEP:
            pass

    def _tail(self, place: Place) -> _Tail:
        return self._tails[place]


def _start(place: Place) -> str:
    return f"{place[0]}/{place[1]:010}/"


def _end(place: Place) -> str:
    return f"{place[0]}/{place[1]:010}0"  # the character behind the slash


def _key(place: Place, sequence: int) -> str:
    return f"{_start(place)}{sequence:019}"


def _before(place: Place, sequence: int) -> str:
    return _key(place, sequence - 1) if sequence else _start(place)


def _sequence(key: str) -> int:
    return int(key.rpartition("/")[2])
