"""Offsets of partitions: contents of cursors, and rules for the offset at which reading starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct


class PartitionOffset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cursor of a partition. Valid for one cluster only, since options may be changed to another cluster."""

    cluster: str
    offset: int  #: offset of the next record
    timestamp: int | None = None  #: time of the record before it, in milliseconds; None: unknown


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
    committed: int | None  #: committed offset of our group
    fetched: bool = False  #: a fetch confirmed ``end``; some brokers otherwise report too low an end


def last_read(cursor: int | None, reported: ClusterOffsets) -> int | None:
    """Return the offset up to which a partition was read, or None if it was never read.

    The committed offset counts only if it is ahead of the cursor, which follows the last record that was accepted here.
    """
    return max((offset for offset in (cursor, reported.committed) if offset is not None), default=None)


def begin(
    cursor: int | None, reported: ClusterOffsets, *, topic_known: bool, start: Literal["latest", "earliest"]
) -> int:
    """Return the offset at which reading a partition starts.

    A new partition of a topic that was read before starts at its first record, so that no record is skipped.
    """
    offset = last_read(cursor, reported)
    if offset is None:
        return reported.end if start == "latest" and not topic_known else reported.first
    return max(offset, reported.first)


def ends_early(cursor: int | None, reported: ClusterOffsets) -> bool:
    """Return whether a partition ends before the offset up to which it was read.

    Such an end proves that the topic was deleted and created again. A missing committed offset proves nothing. Brokers
    delete the offsets of a deleted topic, and also those of a consumer group that was inactive for some days.
    """
    offset = last_read(cursor, reported)
    return offset is not None and reported.fetched and reported.end < offset


def begin_anew(cursor: int | None, reported: ClusterOffsets, *, shared: bool) -> int:
    """Return the offset at which reading starts in a partition of a topic that was deleted and created again.

    Reading starts at the first record, unless another engine of the consumer group has already read further. Brokers
    delete committed offsets with their topic, so a committed offset below this engine's cursor was set by another
    engine. Any other offset may have been committed by this engine while the topic was deleted.
    """
    committed = reported.committed or 0
    if shared and cursor is not None and committed < cursor:
        return max(committed, reported.first)
    return reported.first
