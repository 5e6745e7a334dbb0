"""Rows of a plugin's tables, and logs of rows: appended with growing numbers, read in order, deleted from the oldest.

The name of a log has no ``/`` at its ends. Rows for several logs can be appended in one transaction. ``RowLogs.cut``
leaves the last row of a log on disk, so that numbering continues after it. ``span`` then begins after this row.

Rows of logs that cannot be decoded are logged once, and left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace

from engine import Store, StoredDataUnreadable

T = TypeVar("T")

log = structlog.get_logger("functiond.triggers")

STEP = 1000  #: rows that are read or purged at a time
FIRST_STEP = 8  #: rows of the first read, while their size is unknown

WriteRows = Callable[[str, Mapping[str, bytes]], Awaitable[None]]  #: as ``Store.write``


async def rows_of(store: Store, table: str, *, after: str = "", until: str = "") -> AsyncIterator[tuple[str, bytes]]:
    """Yield rows of a table in the order of their keys. The limits of keys are as for ``scan``."""
    while rows := await store.scan(table, after=after, until=until):
        for row in rows:
            yield row
        after = rows[-1][0]


async def purge_rows(store: Store, table: str, after: str, until: str) -> None:
    """Delete all rows of a table whose keys are between these limits, which are as for ``scan``."""
    while await store.purge(table, until, after=after, limit=STEP) == STEP:
        pass


async def decoded_rows(store: Store, table: str, type: type[T]) -> AsyncIterator[tuple[str, T]]:
    """Yield the keys and values of all rows of a table whose values are JSON. Raises the error of ``decode_row``."""
    async for key, value in rows_of(store, table):
        yield key, decode_row(table, key, value, type)


def decode_row(table: str, key: str, value: bytes, type: type[T]) -> T:
    """Return the value of a row that is JSON. Raises StoredDataUnreadable if it is not what ``type`` demands."""
    try:
        return msgspec.json.decode(value, type=type)
    except (msgspec.MsgspecError, ValueError) as error:
        raise StoredDataUnreadable(f"the row {key} of the table {table}", str(error)) from error


class StoredRow(Protocol):
    """Row of a log. Types of rows are frozen structs, stored as msgpack."""

    @property
    def at(self) -> int:
        """Time in milliseconds, set when the row is appended. Times never decrease within a log."""
        ...

    @property
    def size(self) -> int: ...


R = TypeVar("R", bound=StoredRow)


class _Tail(Struct, kw_only=True, eq=False):
    """State of one log in memory, while the log is loaded."""

    next: int = 0  #: sequence number of the next row
    newest: int = -1  #: sequence number of the last row that is certainly on disk
    earliest: int = 0  #: first readable sequence number
    last: int = 0  #: time of the last row in milliseconds
    news: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    def notify(self) -> None:
        event, self.news = self.news, asyncio.Event()
        event.set()


class RowLogs(Generic[R]):
    """Logs in one table of a plugin. A log must be loaded before it is used."""

    def __init__(self, store: Store, table: str, row: type[R], now: Callable[[], float]) -> None:
        self._store, self._table, self._row, self._now = store, table, row, now
        self._tails: dict[str, _Tail] = {}
        self._undecodable = set[str]()  #: keys that were logged

    async def names(self) -> list[str]:
        """Return the names of the logs that have rows on disk."""
        logs, after = list[str](), ""
        while rows := await self._scan(after, limit=1):
            logs.append(rows[0][0].rpartition("/")[0])
            after = _end(logs[-1])
        return logs

    async def load(self, name: str) -> tuple[R, R] | None:
        """Load a log into memory, and return its first and last row, or None if it has none."""
        last, newest = await self._edge(name, newest=True)
        first, earliest = await self._edge(name, newest=False)
        tail = self._tails[name] = _Tail()
        tail.newest, tail.next, tail.earliest = newest, newest + 1, max(0, earliest)
        if last is None or first is None:
            return None
        tail.last = last.at
        return first, last

    def forget(self, name: str) -> tuple[int, int, int]:
        """Remove a log from memory, and wake the tasks that wait for its changes. Rows on disk stay.

        Return what ``span`` returned, and the time of the last row in milliseconds, 0 if it never had one.
        """
        tail = self._tails.pop(name)
        tail.notify()
        return tail.earliest, tail.next, tail.last

    def span(self, name: str) -> tuple[int, int]:
        """Return the sequence numbers of a log's first readable row and of the next row to be appended."""
        tail = self._tails[name]
        return tail.earliest, tail.next

    def news(self, name: str) -> asyncio.Event:
        """Return an ``asyncio.Event`` that is set at the log's next change."""
        return self._tails[name].news

    def notify(self, name: str) -> None:
        """Wake the tasks that wait for a change of the log."""
        self._tails[name].notify()

    async def append(self, rows: Iterable[tuple[str, R]], write: WriteRows | None = None) -> Sequence[int]:
        """Append rows, each to the log named with it, durably in one transaction. Return their sequence numbers.

        ``write`` takes the place of ``Store.write``, so that the transaction can contain other changes.
        """
        put, sequences, now = dict[str, bytes](), list[int](), int(self._now() * 1000)
        last = dict[str, tuple[_Tail, int]]()
        for name, row in rows:
            tail = self._tails[name]
            tail.last = max(tail.last, now)
            put[_key(name, tail.next)] = msgspec.msgpack.encode(replace(row, at=tail.last))  # type: ignore[type-var]
            sequences.append(tail.next)
            last[name] = tail, tail.next
            tail.next += 1
        await (write or self._store.write)(self._table, put)
        for tail, newest in last.values():
            tail.newest = max(tail.newest, newest)
            tail.notify()
        return sequences

    async def read(self, name: str, position: int, max_bytes: int) -> tuple[list[tuple[int, R]], int]:
        """Return a log's rows from the sequence number ``position`` on with their numbers, and the next position.

        The rows have at most ``max_bytes`` together, but at least one row is returned if one exists.
        """
        numbered, size, step = list[tuple[int, R]](), 0, FIRST_STEP
        while True:
            rows = await self._scan(_before(name, position), _end(name), limit=step)
            for key, value in rows:
                if (row := self._decode(key, value)) is not None:
                    size += row.size
                    if numbered and size > max_bytes:
                        return numbered, position
                    numbered.append((_sequence(key), row))
                position = _sequence(key) + 1
            if len(rows) < step or size >= max_bytes or len(numbered) >= STEP * 10:
                return numbered, position
            step = min(STEP, max(1, (max_bytes - size) * len(numbered) // max(size, 1)))

    async def seek(self, name: str, moment: int) -> int:
        """Return the sequence number of a log's first row at or after ``moment`` (milliseconds).

        Return the number of the next row to be appended if there is no such row.
        """
        low, high = self.span(name)
        while low < high:
            middle = (low + high) // 2
            row, sequence = await self._first(_before(name, middle), _end(name))
            if row is not None and row.at < moment:
                low = sequence + 1
            else:
                high = middle
        return low

    async def cut(self, name: str, sequence: int) -> None:
        """Delete a log's rows before ``sequence``.

        The last row always stays on disk. If it is before ``sequence``, ``span`` begins after it until the log is
        loaded again.
        """
        tail = self._tails[name]
        tail.earliest = max(tail.earliest, sequence)
        if tail.newest >= 0:  # later numbers may belong to rows that could not be written
            await purge_rows(self._store, self._table, f"{name}/", _key(name, min(tail.earliest, tail.newest)))

    async def purge(self, name: str) -> None:
        """Delete all rows of a log, and of all logs whose names begin with its name and a ``/``."""
        await purge_rows(self._store, self._table, f"{name}/", _end(name))

    async def _edge(self, name: str, *, newest: bool) -> tuple[R | None, int]:
        """Return the first or last row of a log, and the number of the first or last one on disk (-1: none)."""
        rows = await self._scan(f"{name}/", _end(name), limit=1, newest=newest)
        if not rows:
            return None, -1
        row, _ = await self._first(f"{name}/", _end(name), newest=newest)
        return row, _sequence(rows[0][0])

    async def _first(self, after: str, until: str, *, newest: bool = False) -> tuple[R | None, int]:
        """Return the first row in a range of keys that can be decoded, and its number (None and -1: there is none)."""
        while rows := await self._scan(after, until, limit=1, newest=newest):
            [(key, value)] = rows
            if (row := self._decode(key, value)) is not None:
                return row, _sequence(key)
            after, until = (after, key) if newest else (key, until)
        return None, -1

    async def _scan(
        self, after: str, until: str = "", *, limit: int, newest: bool = False
    ) -> Sequence[tuple[str, bytes]]:
        return await self._store.scan(self._table, after=after, until=until, limit=limit, newest=newest)

    def _decode(self, key: str, value: bytes) -> R | None:
        """Return a row, or None if it cannot be decoded, which is logged once."""
        try:
            return msgspec.msgpack.decode(value, type=self._row)
        except (msgspec.MsgspecError, ValueError) as error:
            if key not in self._undecodable:
                self._undecodable.add(key)
                log.error("row cannot be decoded and is left out", table=self._table, row=key, problem=str(error))
            return None


def _end(name: str) -> str:
    return f"{name}0"  # 0 is the character after the slash


def _key(name: str, sequence: int) -> str:
    return f"{name}/{sequence:019}"


def _before(name: str, sequence: int) -> str:
    return _key(name, sequence - 1) if sequence else f"{name}/"


def _sequence(key: str) -> int:
    return int(key.rpartition("/")[2])
