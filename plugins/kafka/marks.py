"""Positions up to which partitions were read, and detection of topics that were made anew on brokers without topic ids.

Topics have ids since Kafka 2.8. For older brokers, the last record that was read is fetched again, and its time is
compared:

- Another record at its offset proves that the topic was deleted and another of the same name was created.
- No record at its offset proves nothing. Retention and compaction remove records, and the marker that ends a
  transaction is not given to clients.

Two records of the same time cannot be distinguished. A topic whose records were copied with their times and offsets
therefore counts as the same topic.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from plugins.kafka.offsets import PartitionOffset, name_of
from plugins.kafka.starts import Start

log = structlog.get_logger("functiond.plugins.kafka")


class Marks:
    """Position of each partition: its start, later the offset after the records that were taken.

    The partitions must be assigned to the consumer.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._positions: dict[Any, PartitionOffset] = {}
        self._next: dict[Any, int] = {}  #: next offsets to fetch; one below the position to fetch the last record again

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

    def recheckable(self, partitions: Iterable[Any]) -> bool:
        return any(self._positions[partition].timestamp is not None for partition in partitions)

    def recheck(self, partitions: Iterable[Any]) -> None:
        """Fetch the last read records of partitions again, if their times are known, before any further records."""
        for partition in partitions:
            self._seek(partition, again=self._positions[partition].timestamp is not None)

    def take(self, partition: Any, records: Sequence[Any]) -> Sequence[Any] | None:
        """Return those of the fetched records that are new, and move the partition's position after them.

        Return None if the records prove that the topic was deleted and created again.
        """
        position, due, first, last = self._positions[partition], self._next[partition], records[0], records[-1]
        again = due < position.offset
        repeated = again and first.offset == due
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

    def rewind(self, partition: Any) -> int:
        """Let the next fetch repeat the records of a partition that were fetched but not passed to ``take``.

        Return the offset of the first of them.
        """
        self._consumer.seek(partition, self._next[partition])
        return self._next[partition]

    def skip(self, partition: Any) -> None:
        """Let the next fetch start after the partition's next record, which is then never read."""
        self._next[partition] += 1
        self.rewind(partition)

    def _seek(self, partition: Any, *, again: bool) -> None:
        self._next[partition] = self._positions[partition].offset - again
        self._consumer.seek(partition, self._next[partition])


def _log_unproven(partition: Any, position: PartitionOffset) -> None:
    log.info(
        "cannot determine whether the topic was made anew: the last record that was read is no longer stored",
        partition=name_of(*partition),
        offset=position.offset - 1,
    )
