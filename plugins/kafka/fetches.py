"""Fetches of records from a cluster, and the position of each partition. Skips records that the client cannot decode.

A topic that was deleted and created again must be read from its start. Its id tells since Kafka 2.8. For older
brokers, each time that a topic may have been created again, the last record that was read is fetched again, and its
time is compared:

- Another record at its offset proves that the topic was deleted and another of the same name was created.
- A missing record proves nothing. Retention and compaction remove records, and the marker that ends a
  transaction is not given to clients.

Two records of the same time cannot be distinguished. A topic whose records were copied with their times and offsets
therefore counts as the same topic.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from plugins.kafka.client import library
from plugins.kafka.offsets import PartitionOffset, Start, name_of

log = structlog.get_logger("functiond.plugins.kafka")

#: Milliseconds to fetch from one partition. The client may first wait half a second for the reply of another partition.
APART = 1000


class StartAgain(Exception):
    """The positions of partitions no longer hold, so a new consumer must find their starts.

    ``rejected`` names partitions of which the cluster rejects the offset, or which hold another record before it.
    """

    def __init__(self, rejected: Iterable[str] = ()) -> None:
        self.rejected = frozenset(rejected)
        super().__init__(f"the cluster rejects the offsets of {', '.join(sorted(self.rejected))}")


class Fetches:
    """Fetches of one consumer, and the position of each of its assigned partitions.

    A position is the partition's start, later the offset after the records that were taken.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._in_doubt = False
        self._positions: dict[Any, PartitionOffset] = {}
        self._next: dict[Any, int] = {}  #: next offsets to fetch; one below the position to fetch the last record again

    def recheck_topics(self) -> None:
        """Let the next ``read`` fetch the last read records again, since topics may have been created again.

        To be called for new metadata. The client requests it every few seconds, after a lost connection, and when a
        topic or a leader is missing.
        """
        self._in_doubt = True

    async def read(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        """Return records by partition, from the next offsets on.

        If a topic may have been created again, fetch once more from the last read records on. These are then returned
        too.

        A call of ``recheck_topics`` during the second fetch takes effect at the next call, so that each call makes
        progress.
        """
        fetched = await self._fetch(partitions, seconds, room)
        if self._in_doubt and any(self._positions[partition].timestamp is not None for partition in partitions):
            self._in_doubt = False
            for partition in partitions:
                self._seek(partition, again=self._positions[partition].timestamp is not None)
            fetched = await self._fetch(partitions, seconds, room)
        return fetched

    def position(self, partition: Any) -> PartitionOffset:
        return self._positions[partition]

    def start_at(self, partition: Any, start: Start) -> None:
        """Set the position of a partition to its start.

        If the last record before the start may still be stored, it is fetched again, to compare its time, or to
        learn the time if it is unknown.
        """
        position, reported = start.position, start.reported
        self._positions[partition] = position
        if position.timestamp is not None and position.offset == reported.first:
            _log_unproven(partition, position)
        comparable = position.timestamp is not None or position.offset <= reported.end
        self._seek(partition, again=not position.topic and comparable and position.offset > reported.first)

    def take(self, partition: Any, records: Sequence[Any]) -> Sequence[Any] | None:
        """Return those of the fetched records that are new, and move the partition's position after them.

        Return None if the records prove that the topic was deleted and created again.
        """
        position, next_offset = self._positions[partition], self._next[partition]
        first, last = records[0], records[-1]
        again = next_offset < position.offset
        repeated = again and first.offset == next_offset
        if repeated and position.timestamp not in (None, first.timestamp):
            return None
        if again and not repeated and position.timestamp is not None:
            _log_unproven(partition, position)
        timestamp = None if position.topic else last.timestamp
        self._positions[partition] = replace(position, offset=last.offset + 1, timestamp=timestamp)
        self._next[partition] = last.offset + 1
        return records[1:] if repeated else records

    def pass_markers(self, partition: Any, offset: int) -> bool:
        """Move a position to ``offset``, before which the client found no records. Return whether it has moved.

        Without a topic id the position stays, because its time must be that of the record before it.
        """
        position = self._positions[partition]
        if not position.topic or offset <= position.offset:
            return False
        self._positions[partition] = replace(position, offset=offset)
        self._next[partition] = offset
        return True

    # --- inside -------------------------------------------------------------------------------------------------

    async def _fetch(self, partitions: Collection[Any], seconds: float, room: int) -> dict[Any, list[Any]]:
        try:
            return dict(await self._consumer.getmany(timeout_ms=max(0, int(seconds * 1000)), max_records=room))
        except UnicodeDecodeError:
            return await self._read_apart(partitions, room)
        except library().errors.NoOffsetForPartitionError:
            return {}  # of a partition whose start is not found yet
        except library().errors.OffsetOutOfRangeError as error:
            # The client also starts a partition whose start is not found yet, where the group has committed.
            if rejected := {partition for partition in error.args[0] if partition in partitions}:
                raise StartAgain(name_of(*partition) for partition in rejected) from None
            return {}

    async def _read_apart(self, partitions: Collection[Any], room: int) -> dict[Any, list[Any]]:
        """Return the records of the first partition that has any, after the client could not decode a record.

        The client decodes header names, which may be any bytes, and does not report which record failed. It drops all
        records of the failed fetch, so they are fetched again, partition by partition.
        """
        for partition in partitions:
            self._rewind(partition)
        # The order is random, so that no partition is starved by another.
        for partition in random.sample(tuple(partitions), len(partitions)):
            try:
                if fetched := await self._consumer.getmany(partition, timeout_ms=APART, max_records=room):
                    return dict(fetched)
            except UnicodeDecodeError:
                return {partition: await self._read_singly(partition)}
        return {}

    async def _read_singly(self, partition: Any) -> list[Any]:
        """Return the records of a partition before the undecodable one.

        If the undecodable record is the first, log and skip it, and return none.
        """
        records, offset = list[Any](), self._rewind(partition)
        try:
            while fetched := await self._consumer.getmany(partition, timeout_ms=APART, max_records=1):
                records += fetched[partition]
                offset = records[-1].offset + 1
        except UnicodeDecodeError as error:
            if not records:
                log.error("record skipped", partition=name_of(*partition), offset=offset, problem=str(error))
                self._next[partition] = offset + 1
                self._rewind(partition)
        return records

    def _rewind(self, partition: Any) -> int:
        """Let the next fetch repeat the records of a partition that were fetched but not passed to ``take``.

        Return the offset of the first of them.
        """
        self._consumer.seek(partition, self._next[partition])
        return self._next[partition]

    def _seek(self, partition: Any, *, again: bool) -> None:
        self._next[partition] = self._positions[partition].offset - again
        self._consumer.seek(partition, self._next[partition])


def _log_unproven(partition: Any, position: PartitionOffset) -> None:
    log.info(
        "cannot determine whether the topic was made anew: the last record that was read is no longer stored",
        partition=name_of(*partition),
        offset=position.offset - 1,
    )
