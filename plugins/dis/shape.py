"""Partitions of a stream, each with a range of hash values, and the choice of the partition of a record.

A change of their number splits or merges partitions.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from plugins.dis.access import Entry, Put
from plugins.dis.problems import BAD_REQUEST, NO_PARTITION, DisProblem

LARGEST = (1 << 63) - 1  #: largest hash
RECORD_LIMIT = 1 << 20  #: bytes of one record


class Partition(Struct, frozen=True, kw_only=True):
    number: int
    low: int  #: first hash
    high: int  #: last hash
    parents: tuple[int, ...] = ()
    closed_at: float = 0.0  #: 0 while it accepts records

    @property
    def id(self) -> str:
        return partition_id(self.number)

    @property
    def open(self) -> bool:
        return not self.closed_at


class Stream(Struct, frozen=True, kw_only=True):
    stream_id: str
    project: str
    name: str
    created_at: float
    modified_at: float
    retention: int  #: hours
    stream_type: str
    data_type: str
    partitions: tuple[Partition, ...]  #: sorted by number

    @property
    def open(self) -> tuple[Partition, ...]:
        return tuple(partition for partition in self.partitions if partition.open)

    def partition(self, text: str) -> Partition | None:
        """Return the partition with the given id or number, or None."""
        digits = text.removeprefix("shardId-")
        number = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 10 else -1
        return self.partitions[number] if 0 <= number < len(self.partitions) else None

    def present(self, text: str) -> Partition:
        """Return the partition with the given id or number. Raises DisProblem if there is none."""
        if (partition := self.partition(text)) is None:
            raise DisProblem(NO_PARTITION, f"Partition does not exist. [{text}]")
        return partition


def partition_id(number: int) -> str:
    return f"shardId-{number:010}"


def hash_of(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest()[:8]) >> 1


def evenly(count: int) -> tuple[Partition, ...]:
    """Return ``count`` open partitions that divide all hash values evenly. Sizes of ranges differ by at most one."""
    bounds = [(LARGEST + 1) * number // count for number in range(count + 1)]
    return tuple(Partition(number=n, low=bounds[n], high=bounds[n + 1] - 1) for n in range(count))


def scaled(stream: Stream, count: int, now: float) -> Stream:
    """Return the stream after changing the number of its open partitions to ``count``.

    More partitions are made by halving the widest, fewer by merging the narrowest neighbours. The final ranges are
    computed first. Existing partitions are therefore closed at most once, and no intermediate partitions are created.
    """
    wanted = sorted(stream.open, key=lambda partition: partition.low)
    ranges = [(partition.low, partition.high, {partition.number}) for partition in wanted]
    while len(ranges) < count:
        widest = max(range(len(ranges)), key=lambda n: ranges[n][1] - ranges[n][0])
        low, high, parents = ranges[widest]
        middle = (low + high) // 2
        ranges[widest : widest + 1] = [(low, middle, parents), (middle + 1, high, parents)]
    while len(ranges) > count:
        narrowest = min(range(len(ranges) - 1), key=lambda n: ranges[n + 1][1] - ranges[n][0])
        (low, _, left), (_, high, right) = ranges[narrowest : narrowest + 2]
        ranges[narrowest : narrowest + 2] = [(low, high, left | right)]
    return replace(stream, modified_at=now, partitions=_with(stream.partitions, ranges, now))


def _with(
    existing: tuple[Partition, ...], ranges: Iterable[tuple[int, int, set[int]]], now: float
) -> tuple[Partition, ...]:
    kept = {(partition.low, partition.high) for partition in existing if partition.open}
    new = [(low, high, parents) for low, high, parents in ranges if (low, high) not in kept]
    closed = {number for _, _, parents in new for number in parents}
    old = [replace(partition, closed_at=now) if partition.number in closed else partition for partition in existing]
    made = [
        Partition(number=len(existing) + index, low=low, high=high, parents=tuple(sorted(parents)))
        for index, (low, high, parents) in enumerate(new)
    ]
    return (*old, *made)


class OpenPartitions:
    """Open partitions of a stream, for the records of one request."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._sorted = sorted(stream.open, key=lambda partition: partition.low)
        self._lows = [partition.low for partition in self._sorted]

    def find(self, entry: Entry) -> Partition | Put:
        """Return the partition of a record, or the error result if the record must be refused."""
        if len(entry.data) > RECORD_LIMIT:
            return Put(error_code=BAD_REQUEST, error_message=f"a record may have {RECORD_LIMIT} bytes")
        if entry.partition_id:
            partition = self._stream.partition(entry.partition_id)
            if partition is None or not partition.open:
                return Put(error_code=NO_PARTITION, error_message=f"no open partition: [{entry.partition_id}]")
            return partition
        if not entry.explicit_hash_key:
            key = entry.partition_key
            return self._holding(random.randint(0, LARGEST) if key is None else hash_of(key))
        text = entry.explicit_hash_key
        hashed = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not 0 <= hashed <= LARGEST:
            return Put(error_code=BAD_REQUEST, error_message=f"explicit_hash_key must be 0 to {LARGEST}")
        return self._holding(hashed)

    def _holding(self, hashed: int) -> Partition:
        """Return the partition whose range contains the hash value: open partitions cover all values."""
        return self._sorted[bisect_right(self._lows, hashed) - 1]
