"""Logs of rows in a plugin's own tables: numbered without repetition, read in order, dropped from their beginning.

A log has a name without ``/`` at its ends; what is appended to several is one transaction. The last row of a log stays
on disk past its time, unseen: the numbers go on from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import Store

STEP = 1000  #: rows that are read or purged at a time
FIRST_STEP = 8  #: rows that are read before anything is known of their size


class Row(Protocol):
    """A frozen struct, which is kept as msgpack."""

    @property
    def at(self) -> int:
        """Milliseconds; set when it is appended. Times do not go back within a log."""
        ...

    @property
    def size(self) -> int: ...


R = TypeVar("R", bound=Row)


class _Tail(Struct, kw_only=True, eq=False):
    """What is known of a log without reading it."""

    next: int = 0  #: sequence number
    newest: int = -1  #: that of the last row that is certainly on disk
    earliest: int = 0  #: what may be read begins here
    last: int = 0  #: milliseconds
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def tell(self) -> None:
        told, self.news = self.news, asyncio.Event()
        told.set()


class RowLogs(Generic[R]):
    """All logs of a table. Each is to be loaded before it is used."""

    def __init__(self, store: Store, table: str, row: type[R], now: Callable[[], float]) -> None:
        self._store, self._table, self._row, self._now = store, table, row, now
        self._tails: dict[str, _Tail] = {}

    async def names(self) -> list[str]:
        """Of the logs that have rows."""
        found, after = list[str](), ""
        while rows := await self._store.scan(self._table, after=after, limit=1):
            found.append(rows[0][0].rpartition("/")[0])
            after = _end(found[-1])
        return found

    async def load(self, name: str) -> tuple[R, R] | None:
        """Gives its first row and its last."""
        last = await self._edge(name, newest=True)
        first = await self._edge(name, newest=False)
        tail = self._tails[name] = _Tail()
        if last is None or first is None:
            return None
        tail.newest, tail.next, tail.earliest, tail.last = last[0], last[0] + 1, first[0], last[1].at
        return first[1], last[1]

    def knows(self, name: str) -> bool:
        return name in self._tails

    def forget(self, name: str) -> None:
        """Whoever waits for it is told."""
        if tail := self._tails.pop(name, None):
            tail.tell()

    def span(self, name: str) -> tuple[int, int]:
        """The first sequence number that may be read, and that of the next row."""
        tail = self._tails[name]
        return tail.earliest, tail.next

    def news(self, name: str) -> asyncio.Event:
        """Set once there is something new."""
        return self._tails[name].news

    def tell(self, name: str) -> None:
        self._tails[name].tell()

    async def append(self, rows: Iterable[tuple[str, R]]) -> Sequence[int]:
        """Rows and their logs; gives their sequence numbers. They are on disk once this returns."""
        put, sequences, now = dict[str, bytes](), list[int](), int(self._now() * 1000)
        last = dict[str, tuple[_Tail, int]]()
        for name, row in rows:
            tail = self._tails[name]
            tail.last = max(tail.last, now)
            put[_key(name, tail.next)] = msgspec.msgpack.encode(replace(row, at=tail.last))  # type: ignore[type-var]
            sequences.append(tail.next)
            last[name] = tail, tail.next
            tail.next += 1
        await self._store.write(self._table, put)
        for tail, newest in last.values():
            tail.newest = max(tail.newest, newest)
            tail.tell()
        return sequences

    async def read(self, name: str, position: int, max_bytes: int) -> tuple[list[tuple[int, R]], int]:
        """Numbered rows from there on, as many as fit, and at least one if there is one; and where to go on."""
        found, size, step = list[tuple[int, R]](), 0, FIRST_STEP
        while True:
            rows = await self._store.scan(self._table, after=_before(name, position), until=_end(name), limit=step)
            for key, value in rows:
                row = self._decode(value)
                size += row.size
                if found and size > max_bytes:
                    return found, position
                found.append((_sequence(key), row))
                position = found[-1][0] + 1
            if len(rows) < step or size >= max_bytes or len(found) >= STEP * 10:
                return found, position
            step = min(STEP, max(1, (max_bytes - size) * len(found) // max(size, 1)))

    async def seek(self, name: str, moment: int) -> int:
        """The sequence number of the first row from this time (milliseconds) on."""
        low, high = self.span(name)
        while low < high:
            middle = (low + high) // 2
            rows = await self._store.scan(self._table, after=_before(name, middle), until=_end(name), limit=1)
            if rows and self._decode(rows[0][1]).at < moment:
                low = _sequence(rows[0][0]) + 1
            else:
                high = middle
        return low

    async def cut(self, name: str, sequence: int) -> None:
        """What lies before is not read any more."""
        tail = self._tails[name]
        tail.earliest = max(tail.earliest, sequence)
        if tail.newest >= 0:  # the numbers behind it may be those of rows that were refused
            await self._purge(f"{name}/", _key(name, min(tail.earliest, tail.newest)))

    async def purge(self, name: str) -> None:
        """All rows, also of the logs whose names go on from this one behind a ``/``."""
        await self._purge(f"{name}/", _end(name))

    async def _purge(self, after: str, until: str) -> None:
        while await self._store.purge(self._table, until, after=after, limit=STEP) == STEP:
            pass

    async def _edge(self, name: str, *, newest: bool) -> tuple[int, R] | None:
        rows = await self._store.scan(self._table, after=f"{name}/", until=_end(name), limit=1, newest=newest)
        return (_sequence(rows[0][0]), self._decode(rows[0][1])) if rows else None

    def _decode(self, value: bytes) -> R:
        return msgspec.msgpack.decode(value, type=self._row)


def _end(name: str) -> str:
    return f"{name}0"  # the character behind the slash


def _key(name: str, sequence: int) -> str:
    return f"{name}/{sequence:019}"


def _before(name: str, sequence: int) -> str:
    return _key(name, sequence - 1) if sequence else f"{name}/"


def _sequence(key: str) -> int:
    return int(key.rpartition("/")[2])
