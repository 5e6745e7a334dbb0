"""How far a trigger has read each partition: what its cursors say, and where that makes it begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct


class Position(Struct, frozen=True, kw_only=True):
    """A cursor. It counts for its own cluster only: options may be changed to another."""

    cluster: str
    offset: int  #: of the next record


def name_of(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def written(cluster: str, offset: int) -> bytes:
    return msgspec.json.encode(Position(cluster=cluster, offset=offset))


def read(cursors: Mapping[str, bytes], cluster: str) -> dict[str, int]:
    """Offsets by the names of partitions."""
    found = {name: msgspec.json.decode(value, type=Position) for name, value in cursors.items()}
    return {name: position.offset for name, position in found.items() if position.cluster == cluster}


class Found(Struct, frozen=True, kw_only=True):
    """What the cluster says of a partition."""

    first: int  #: offset of the oldest record that is still there
    end: int  #: offset of the next record to come
    committed: int | None  #: of our group


def begin(own: int | None, found: Found, *, topic_known: bool, start: Literal["latest", "earliest"]) -> int:
    """Where to begin a partition.

    The group may be ahead where another engine has read meanwhile, never behind what this one has accepted. A
    partition that is new to a known topic is read from its first record: nobody has missed it on purpose.
    """
    reached = max((offset for offset in (own, found.committed) if offset is not None), default=None)
    if reached is None:
        return found.end if start == "latest" and not topic_known else found.first
    return max(reached, found.first)
