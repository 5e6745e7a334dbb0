"""How far a trigger has read each partition: what its cursors say, and where that makes it begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct


class PartitionOffset(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A cursor. It counts for its own cluster only: options may be changed to another."""

    cluster: str
    offset: int  #: of the next record
    timestamp: int | None = None  #: of the record before it, in milliseconds; None: not known


def name_of(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def written(position: PartitionOffset) -> bytes:
    return msgspec.json.encode(position)


def read(cursors: Mapping[str, bytes], cluster: str) -> dict[str, PartitionOffset]:
    """Positions by the names of partitions."""
    found = {name: msgspec.json.decode(value, type=PartitionOffset) for name, value in cursors.items()}
    return {name: position for name, position in found.items() if position.cluster == cluster}


class Found(Struct, frozen=True, kw_only=True):
    """What the cluster says of a partition."""

    first: int  #: offset of the oldest record that is still there
    end: int  #: offset of the next record to come
    committed: int | None  #: of our group
    fetched: bool = False  #: a fetch was answered with no later end; some brokers tell too low a one otherwise


def reached(own: int | None, found: Found) -> int | None:
    """Return how far a partition was read: the group may be ahead, never behind what this engine has accepted."""
    return max((offset for offset in (own, found.committed) if offset is not None), default=None)


def begin(own: int | None, found: Found, *, topic_known: bool, start: Literal["latest", "earliest"]) -> int:
    """Return where to begin a partition.

    A partition that is new to a known topic is read from its first record: nobody has missed it on purpose.
    """
    offset = reached(own, found)
    if offset is None:
        return found.end if start == "latest" and not topic_known else found.first
    return max(offset, found.first)


def ends_early(own: int | None, found: Found) -> bool:
    """Return whether a partition ends before what was read of it, so that its topic was made anew.

    A missing committed offset proves nothing: brokers delete the offsets of a deleted topic, and those of a group that
    has been silent for some days.
    """
    offset = reached(own, found)
    return offset is not None and found.fetched and found.end < offset


def begin_anew(own: int | None, found: Found, *, shared: bool) -> int:
    """Return where to begin a partition whose topic was made anew.

    The first record is the place, unless another engine of the group has read on from there. Brokers delete committed
    offsets with their topic, so a lower one than our own is another engine's. Any other may be our own, committed while
    the topic was deleted.
    """
    committed = found.committed or 0
    return max(committed, found.first) if shared and own is not None and committed < own else found.first
