"""Types of records and partitions, of streams that the engine serves itself and of those of a remote endpoint."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

CursorType = Literal["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]


class Entry(Struct, frozen=True, kw_only=True):
    """Record that a client sends to be stored. In JSON, ``data`` is base64.

    The record's partition is the one with ``partition_id``. Without it, the partition is selected by
    ``explicit_hash_key``, or else by the hash of ``partition_key``.
    """

    data: bytes
    partition_key: Annotated[str, Meta(max_length=256)] | None = None
    explicit_hash_key: str | None = None
    partition_id: str | None = None


class Put(Struct, frozen=True, kw_only=True):
    """Result of storing one record: its partition and sequence number, or an error."""

    partition_id: str | None = None
    sequence_number: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Record(Struct, frozen=True, kw_only=True):
    sequence_number: str
    data: bytes
    partition_key: str | None = None
    timestamp: int = 0  #: milliseconds
    hops: int = 0  #: number of functions that led to it


class Page(Struct, frozen=True, kw_only=True):
    records: list[Record]
    next_partition_cursor: str


class Start(Struct, frozen=True, kw_only=True):
    """Position from which a partition is read."""

    type: CursorType
    sequence_number: str = ""
    timestamp: int = 0  #: milliseconds


class Part(Struct, frozen=True, kw_only=True):
    """State of one partition for a reader.

    A partition that a split or merge has closed is read to its end before its children.
    """

    id: str
    open: bool
    expired: bool = False  #: closed so long ago that all its records have expired
    parents: tuple[str, ...] = ()


class Layout(Struct, frozen=True, kw_only=True):
    stream_id: str
    parts: tuple[Part, ...]


#: Records of a partition: number of the first readable one, that of the next one, time of the last one in milliseconds.
Span = tuple[int, int, int]
