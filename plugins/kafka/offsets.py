"""Offsets of partitions: contents of cursors, and rules for the offset at which reading starts."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Struct


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


def encode_offset(position: PartitionOffset) -> bytes:
    return msgspec.json.encode(position)


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
    offset = max((one for one in (cursor, reported.committed) if one is not None), default=start)
    return max(offset, reported.first)
