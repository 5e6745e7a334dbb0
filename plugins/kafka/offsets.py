"""Offsets of partitions: contents of cursors, the offset at which reading starts, and positions that users set."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from engine import InvalidField
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions, milliseconds
from plugins.kafka.topics import Topic

LATER = 1 << 62  #: time after all records, in milliseconds
_ENDS = {"earliest": 0, "latest": LATER}


class PartitionOffset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a partition. Valid for one cluster only, since options may be changed to another cluster."""

    cluster: str
    offset: int  #: offset of the next record
    topic: str = (
        ""  #: id of the topic; empty: unknown, since the brokers give none or an older release stored the cursor
    )
    timestamp: int | None = None  #: time of the record before it, in milliseconds, for topics without an id
    sought: bool = False  #: a user has set the position; it counts, whatever the group has committed
    at: int | None = None  #: sought time in milliseconds, in place of ``offset``; the next start finds its offset


def name_of(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def decode_offsets(cursors: Mapping[str, bytes], cluster: str) -> dict[str, PartitionOffset]:
    """Return the positions in a trigger's cursors that are valid for a cluster, keyed by the names of partitions."""
    positions = {name: msgspec.json.decode(value, type=PartitionOffset) for name, value in cursors.items()}
    return {name: position for name, position in positions.items() if position.cluster == cluster}


class ClusterOffsets(Struct, frozen=True, kw_only=True):
    """Offsets of a partition as the cluster reports them."""

    first: int  #: offset of the oldest record that is stored
    end: int  #: offset of the next record to be written
    committed: int | None = None  #: offset that the group has committed for this topic, if engines share it
    anew: bool = False  #: the topic is another one than the cursor's, or has lost the records before the cursor


def begin(cursor: int | None, reported: ClusterOffsets, start: int) -> int:
    """Return the offset at which reading a partition starts. ``start`` is that of a topic which was never read.

    A committed offset counts if it is ahead of the cursor, since another engine of the group has read on. In a topic
    that was made anew, this engine's cursor and what it committed until now count no more: a committed offset below
    the cursor was set by an engine that has noticed first.
    """
    if reported.anew:
        committed = reported.committed or 0
        return max(reported.first, committed if cursor is not None and committed < cursor else 0)
    offset = max((offset for offset in (cursor, reported.committed) if offset is not None), default=start)
    return max(offset, reported.first)


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
        times = {name: cursor.at for name, cursor in named.items() if cursor and cursor.at is not None}
        if self._start not in ("earliest", "latest"):
            time = milliseconds("starting_position", self._start)
            times |= {partition: time for partition in partitions if partition.topic not in read}
        offsets = await self._at_times(times, end)
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
            new = offsets.get(partition, new)
            starts[partition] = self._start_of(cursor, topic, reported, new)
        return starts

    def _start_of(self, cursor: PartitionOffset | None, topic: str, reported: ClusterOffsets, new: int) -> Start:
        stored, removed = False, 0
        if cursor is not None and cursor.sought:
            offset = new if cursor.at is not None else min(max(cursor.offset, reported.first), reported.end)
        else:
            offset = begin(cursor.offset if cursor else None, reported, new)
            if cursor is not None and not reported.anew:
                stored = offset == cursor.offset and cursor.topic == topic
                removed = max(0, reported.first - cursor.offset)
        position = PartitionOffset(cluster=self._cluster, offset=offset, topic=topic)
        kept = cursor if stored and cursor is not None else position
        return Start(position=kept, reported=reported, stored=stored, removed=removed)

    async def _committed(self, partitions: Collection[Any], topics: Mapping[str, Topic]) -> dict[Any, int]:
        """Return the committed offsets of the present topics. Those of earlier releases do not tell the topic."""
        if not self._shared:
            return {}
        committed_offsets = await self._consumer._coordinator.fetch_committed_offsets(list(partitions))
        return {
            partition: group.offset
            for partition, group in committed_offsets.items()
            if group.metadata in ("", topics[partition.topic].id)
        }

    async def _at_times(self, times: Mapping[Any, int], end: Mapping[Any, int]) -> dict[Any, int]:
        """Return the offsets of the first records of these times or later; that of the end if there are none."""
        offsets = await self._consumer.offsets_for_times(times) if times else {}
        return {partition: at.offset if at is not None else end[partition] for partition, at in offsets.items()}


def is_anew(cursor: PartitionOffset, topic: str, first: int, end: int, *, rejected: bool) -> bool:
    """Return whether a partition belongs to another topic than its cursor, or has lost the records before it."""
    if topic and cursor.topic and topic != cursor.topic:
        return not cursor.sought
    if cursor.sought or cursor.offset < first:
        return False
    return (cursor.offset > end and (rejected or not topic)) or (rejected and not topic and cursor.offset > first)


def seek(
    options: KafkaOptions | OpenKafkaOptions, cursors: Mapping[str, bytes], positions: Mapping[str, str]
) -> dict[str, bytes]:
    """Return the cursors for positions by topic or partition: an offset, ``earliest``, ``latest`` or a time.

    Raises InvalidField for a position that is none of these, and for a partition that the trigger has never read.
    """
    known = decode_offsets(cursors, options.cluster)
    changed: dict[str, bytes] = {}
    for name, text in positions.items():
        partitions = [partition for partition in known if name in (partition, partition.rpartition("/")[0])]
        if not partitions:
            have = ", ".join(sorted(known)[:20]) or "none: enable it first"
            raise InvalidField("positions", name, f"must be a topic or partition that the trigger has read ({have})")
        changed |= dict.fromkeys(partitions, msgspec.json.encode(_position(options.cluster, text)))
    return changed


def _position(cluster: str, text: str) -> PartitionOffset:
    if text.isascii() and text.isdecimal() and len(text) < 19:
        return PartitionOffset(cluster=cluster, offset=int(text), sought=True)
    at = _ENDS[text] if text in _ENDS else milliseconds("positions", text)
    return PartitionOffset(cluster=cluster, offset=-1, at=at, sought=True)
