"""Start offsets of a consumer's partitions, from the trigger's cursors and the offsets that the cluster reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from plugins.kafka.offsets import ClusterOffsets, PartitionOffset, begin, name_of
from plugins.kafka.options import milliseconds
from plugins.kafka.topics import Topic


class Start(Struct, frozen=True, kw_only=True):
    """Position at which reading a partition starts, with the offsets that the cluster reported."""

    position: PartitionOffset
    reported: ClusterOffsets
    stored: bool  #: the trigger's cursor is this position
    removed: int = 0  #: records after the cursor that the topic no longer holds


class Starts:
    """Finder of the offsets at which a consumer starts to read its partitions.

    ``start`` is the position in topics that were never read: ``earliest``, ``latest``, or a time (RFC 3339). Offsets
    that the group has committed count only if engines share the partitions (``shared``).
    """

    def __init__(self, consumer: Any, cluster: str, start: str, *, shared: bool) -> None:
        self._consumer, self._cluster, self._start, self._shared = consumer, cluster, start, shared

    async def find(
        self,
        partitions: Collection[Any],
        cursors: Mapping[str, PartitionOffset],
        topics: Mapping[str, Topic],
        rejected: Collection[str],
    ) -> dict[Any, Start]:
        """Return the start of each partition. Reads offsets from the cluster.

        ``rejected`` names the partitions that do not hold the last read record: the cluster rejected the offset, or
        another record was there.
        """
        first = await self._consumer.beginning_offsets(partitions)
        end = await self._consumer.end_offsets(partitions)
        read = {name.rpartition("/")[0] for name in cursors}
        named = {partition: cursors.get(name_of(*partition)) for partition in partitions}
        times = await self._at_times(
            {one: cursor.at for one, cursor in named.items() if cursor and cursor.at is not None}
            | {one: time for one in partitions if one.topic not in read and (time := _time(self._start)) is not None},
            end,
        )
        committed = await self._committed(partitions, topics)
        starts: dict[Any, Start] = {}
        for partition, cursor in named.items():
            topic = topics[partition.topic].id
            reported = ClusterOffsets(
                first=first[partition],
                end=end[partition],
                committed=committed.get(partition),
                anew=cursor is not None
                and is_anew(cursor, topic, first[partition], end[partition], rejected=name_of(*partition) in rejected),
            )
            new = reported.first if partition.topic in read or self._start == "earliest" else reported.end
            new = times.get(partition, new)
            starts[partition] = self._start_of(cursor, topic, reported, new)
        return starts

    def _start_of(self, cursor: PartitionOffset | None, topic: str, reported: ClusterOffsets, new: int) -> Start:
        if cursor is not None and cursor.sought:
            offset = new if cursor.at is not None else min(max(cursor.offset, reported.first), reported.end)
            return Start(position=self._position(offset, topic), reported=reported, stored=False)
        offset = begin(cursor.offset if cursor else None, reported, new)
        if cursor is None or reported.anew:
            return Start(position=self._position(offset, topic), reported=reported, stored=False)
        stored = offset == cursor.offset and cursor.topic == topic
        position = cursor if stored else self._position(offset, topic)
        return Start(
            position=position, reported=reported, stored=stored, removed=max(0, reported.first - cursor.offset)
        )

    def _position(self, offset: int, topic: str) -> PartitionOffset:
        return PartitionOffset(cluster=self._cluster, offset=offset, topic=topic)

    async def _committed(self, partitions: Collection[Any], topics: Mapping[str, Topic]) -> dict[Any, int]:
        """Return the committed offsets of the present topics. Those of earlier releases do not tell the topic."""
        if not self._shared:
            return {}
        found = await self._consumer._coordinator.fetch_committed_offsets(list(partitions))
        return {
            partition: group.offset
            for partition, group in found.items()
            if group.metadata in ("", topics[partition.topic].id)
        }

    async def _at_times(self, times: Mapping[Any, int], end: Mapping[Any, int]) -> dict[Any, int]:
        """Return the offsets of the first records of these times or later; that of the end if there are none."""
        found = await self._consumer.offsets_for_times(times) if times else {}
        return {partition: at.offset if at is not None else end[partition] for partition, at in found.items()}


def is_anew(cursor: PartitionOffset, topic: str, first: int, end: int, *, rejected: bool) -> bool:
    """Return whether a partition belongs to another topic than its cursor, or has lost the records before it."""
    if topic and cursor.topic and topic != cursor.topic:
        return not cursor.sought
    if cursor.sought or cursor.offset < first:
        return False
    return (cursor.offset > end and (rejected or not topic)) or (rejected and not topic and cursor.offset > first)


def _time(start: str) -> int | None:
    """Return the time of a start position in milliseconds since the epoch, or None if it is none."""
    return None if start in ("earliest", "latest") else milliseconds("starting_position", start)
