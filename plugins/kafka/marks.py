"""Where a consumer reads on in each partition, and whether its topic is still the one that was read.

The last record that was read is fetched once more, and its time compared. If another record has its offset, the topic
was deleted, and one of the same name was made. If no record has it, nothing is proven: retention and compaction remove
records, and clients are not given the marker that ends a transaction. Two records of the same time cannot be told
apart, so a topic whose records were copied with their times and offsets counts as the one that was read. Kafka gives
each topic an id as well, which the client library does not tell: ids come with version 10 of the metadata, and aiokafka
0.14 asks for version 5.
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
    """Positions behind the records that were taken, by partition. The consumer must be assigned the partitions."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._positions: dict[Any, PartitionOffset] = {}
        self._next: dict[Any, int] = {}  #: offsets to come; below the position while the last record is to come again

    def position(self, one: Any) -> PartitionOffset:
        return self._positions[one]

    def stand(self, one: Any, start: Start) -> None:
        """Read on from a start. If the time of the last record is not known, learn it where that record can be."""
        position, found = start.position, start.found
        self._positions[one] = position
        if position.timestamp is not None and position.offset == found.first:
            _say_gone(one, position)
        there = position.timestamp is not None or position.offset <= found.end
        self._seek(one, again=there and position.offset > found.first)

    def look_again(self, partitions: Iterable[Any]) -> None:
        """Fetch the last records again, where their times are known, before any others are taken."""
        for one in partitions:
            self._seek(one, again=self._positions[one].timestamp is not None)

    def take(self, one: Any, records: Sequence[Any]) -> Sequence[Any] | None:
        """Return those records that are new, and move the position behind them; None if the topic was made anew."""
        position, due, first, last = self._positions[one], self._next[one], records[0], records[-1]
        if first.offset < due:  # the client goes back to the first record if the partition ends before what is due
            return None
        again = due < position.offset
        back = again and first.offset == due
        if back and position.timestamp not in (None, first.timestamp):
            return None
        if again and not back and position.timestamp is not None:
            _say_gone(one, position)
        self._positions[one] = replace(position, offset=last.offset + 1, timestamp=last.timestamp)
        self._next[one] = last.offset + 1
        return records[1:] if back else records

    def ends_early(self, one: Any) -> bool:
        """Return whether the last fetch has shown an end before the position.

        A new leader also shows one for a moment, until it knows how far its replicas are.
        """
        end = self._consumer.highwater(one)
        return end is not None and end < self._positions[one].offset

    def rewind(self, one: Any) -> int:
        """Fetch again what was fetched and not taken. Return its offset."""
        self._consumer.seek(one, self._next[one])
        return self._next[one]

    def pass_over(self, one: Any) -> None:
        """Leave out the next record."""
        self._next[one] += 1
        self.rewind(one)

    def _seek(self, one: Any, *, again: bool) -> None:
        self._next[one] = self._positions[one].offset - again
        self._consumer.seek(one, self._next[one])


def _say_gone(one: Any, position: PartitionOffset) -> None:
    log.info(
        "cannot tell whether the topic was made anew: the last record that was read is gone",
        partition=name_of(*one),
        offset=position.offset - 1,
    )
