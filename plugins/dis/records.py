"""Records of the streams that the engine serves itself, stored in the plugin's tables as one log per partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from engine import Store
from plugins._shared.row_log import RowLogs
from plugins.dis.access import Entry, Record

TABLE = "records"

PartitionKey = tuple[str, int]  #: stream id, number of the partition


class _Row(Struct, frozen=True, array_like=True):
    at: int
    key: str | None
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


class RecordLog:
    """Stored records of all partitions. A partition must be loaded by ``load`` before other methods use it."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._logs = RowLogs(store, TABLE, _Row, now)

    async def load(self, partition: PartitionKey) -> None:
        await self._logs.load(_log(partition))

    def forget(self, partition: PartitionKey) -> None:
        """Unload a deleted partition, and wake the tasks that wait for its changes."""
        self._logs.forget(_log(partition))

    def span(self, partition: PartitionKey) -> tuple[int, int]:
        """Return the sequence numbers of the partition's first readable record and of the next one to be appended."""
        return self._logs.span(_log(partition))

    def news(self, partition: PartitionKey) -> asyncio.Event:
        """Return an event that is set at the partition's next change."""
        return self._logs.news(_log(partition))

    def notify(self, partition: PartitionKey) -> None:
        """Wake the tasks that wait for a change of the partition."""
        self._logs.notify(_log(partition))

    async def append(self, stream_id: str, entries: Iterable[tuple[int, Entry]]) -> Sequence[int]:
        """Append entries in one transaction, and return their sequence numbers.

        Each entry is paired with the number of its partition.
        """
        return await self._logs.append(
            (_log((stream_id, number)), _Row(at=0, key=entry.partition_key, data=entry.data))
            for number, entry in entries
        )

    async def read(self, partition: PartitionKey, position: int, max_bytes: int) -> tuple[list[Record], int]:
        """Return records from the sequence number ``position`` on, and the number at which the next call must continue.

        The records have at most ``max_bytes`` in total, but at least one is returned if one exists.
        """
        rows, position = await self._logs.read(_log(partition), position, max_bytes)
        records = [
            Record(sequence_number=str(sequence), data=row.data, partition_key=row.key, timestamp=row.at)
            for sequence, row in rows
        ]
        return records, position

    async def seek(self, partition: PartitionKey, moment: int) -> int:
        """Return the sequence number of the first record stored at or after ``moment`` (milliseconds since 1970)."""
        return await self._logs.seek(_log(partition), moment)

    async def expire(self, partition: PartitionKey, moment: int) -> None:
        """Hide records stored before ``moment`` (milliseconds since the epoch) from readers, and delete them.

        The partition's last record stays on disk, hidden, so that numbering continues after it.
        """
        await self._logs.cut(_log(partition), await self.seek(partition, moment))

    async def purge(self, stream_id: str) -> None:
        """Delete all records of a deleted stream."""
        await self._logs.purge(stream_id)

    async def streams(self) -> list[str]:
        """Return the ids of all streams that have rows on disk, including hidden ones."""
        return list(dict.fromkeys(name.partition("/")[0] for name in await self._logs.names()))


def _log(partition: PartitionKey) -> str:
    return f"{partition[0]}/{partition[1]:010}"
