"""Rows of stored records. Each partition of a stream that the engine serves itself has one log of rows."""

from __future__ import annotations

from msgspec import Struct

from plugins.dis.access import Entry, Record

TABLE = "records"


class Row(Struct, frozen=True, array_like=True):
    at: int
    key: str | None
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)


def log_of(stream_id: str, number: int) -> str:
    """Return the name of a partition's log. It begins with the stream's id and a ``/``."""
    return f"{stream_id}/{number:010}"


def row_of(entry: Entry) -> Row:
    return Row(at=0, key=entry.partition_key, data=entry.data)


def record_of(sequence: int, row: Row) -> Record:
    return Record(sequence_number=str(sequence), data=row.data, partition_key=row.key, timestamp=row.at)
