"""The records of embedded streams: rows of the plugin's own tables, a log for each partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from engine import Store
from plugins._shared.row_log import RowLogs
from plugins.dis.access import Entry, Record

TABLE = "records"

Place = tuple[str, int]  #: stream id, number of the partition


class _Row(Struct, frozen=True, array_like=True):
    at: int
    key: str | None
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


class Records:
    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._logs = RowLogs(store, TABLE, _Row, now)

    async def load(self, place: Place) -> None:
        await self._logs.load(_log(place))

    def forget(self, place: Place) -> None:
        """Whoever waits for it is told."""
        self._logs.forget(_log(place))

    def span(self, place: Place) -> tuple[int, int]:
        """The first sequence number that may be read, and that of the next record."""
        return self._logs.span(_log(place))

    def news(self, place: Place) -> asyncio.Event:
        """Set once there is something new."""
        return self._logs.news(_log(place))

    def tell(self, place: Place) -> None:
        self._logs.tell(_log(place))

    async def append(self, stream_id: str, entries: Iterable[tuple[int, Entry]]) -> Sequence[int]:
        """All in one transaction, by the numbers of their partitions; gives their sequence numbers."""
        return await self._logs.append(
            (_log((stream_id, number)), _Row(at=0, key=entry.partition_key, data=entry.data))
            for number, entry in entries
        )

    async def read(self, place: Place, position: int, max_bytes: int) -> tuple[list[Record], int]:
        """From there on, as many as fit, and at least one if there is one; and where to go on."""
        rows, position = await self._logs.read(_log(place), position, max_bytes)
        records = [
            Record(sequence_number=str(sequence), data=row.data, partition_key=row.key, timestamp=row.at)
            for sequence, row in rows
        ]
        return records, position

    async def seek(self, place: Place, moment: int) -> int:
        """The sequence number of the first record from this time (milliseconds) on."""
        return await self._logs.seek(_log(place), moment)

    async def expire(self, place: Place, moment: int) -> None:
        """What is older than this time (milliseconds) is not read any more."""
        await self._logs.cut(_log(place), await self.seek(place, moment))

    async def purge(self, stream_id: str) -> None:
        """All of a stream that is gone."""
        await self._logs.purge(stream_id)

    async def streams(self) -> list[str]:
        """Ids of the streams that have rows."""
        return list(dict.fromkeys(name.partition("/")[0] for name in await self._logs.names()))


def _log(place: Place) -> str:
    return f"{place[0]}/{place[1]:010}"
