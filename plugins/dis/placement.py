"""Choice of the partition in which a record is stored."""

from __future__ import annotations

import random
from bisect import bisect_right

from plugins.dis.access import Entry, Put
from plugins.dis.problems import BAD_REQUEST, NO_PARTITION
from plugins.dis.records import log_of
from plugins.dis.shape import LARGEST, Partition, Stream, hash_of

RECORD_LIMIT = 1 << 20  #: bytes of one record


class Target:
    """Open partition of a stream: its id, and the name of its log."""

    def __init__(self, stream_id: str, partition: Partition) -> None:
        self.id, self.log, self.low = partition.id, log_of(stream_id, partition.number), partition.low


class Placement:
    """Open partitions of a stream, for the records of one request."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._by_number = {one.number: Target(stream.stream_id, one) for one in stream.open}
        self._sorted = sorted(self._by_number.values(), key=lambda one: one.low)
        self._lows = [one.low for one in self._sorted]

    def find(self, entry: Entry) -> Target | Put:
        """Return the partition of a record, or the error result if the record must be refused."""
        if len(entry.data) > RECORD_LIMIT:
            return Put(error_code=BAD_REQUEST, error_message=f"a record may have {RECORD_LIMIT} bytes")
        if entry.partition_id:
            partition = self._stream.partition(entry.partition_id)
            target = self._by_number.get(partition.number) if partition else None
            return target or Put(error_code=NO_PARTITION, error_message=f"no open partition: [{entry.partition_id}]")
        if not entry.explicit_hash_key:
            key = entry.partition_key
            return self._holding(random.randint(0, LARGEST) if key is None else hash_of(key))
        text = entry.explicit_hash_key
        hashed = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
        if not 0 <= hashed <= LARGEST:
            return Put(error_code=BAD_REQUEST, error_message=f"explicit_hash_key must be 0 to {LARGEST}")
        return self._holding(hashed)

    def _holding(self, hashed: int) -> Target:
        """Return the partition whose range contains the hash value: open partitions cover all values."""
        return self._sorted[bisect_right(self._lows, hashed) - 1]
