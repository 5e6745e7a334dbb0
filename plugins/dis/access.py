"""Interface by which sources and destinations use streams, served by the engine itself or by a remote endpoint."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Literal, Protocol

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


class StreamAccess(Protocol):
    """Access to the streams of the engine or of a remote endpoint.

    Methods raise DisProblem if a request is refused, and other errors if a remote endpoint does not answer as expected.
    """

    fresh_for: float  #: seconds for which a reader may use a layout that it has read

    async def layout(self, project: str, stream: str) -> Layout: ...

    async def cursor(self, project: str, stream: str, partition_id: str, start: Start) -> str:
        """Return a cursor for reading a partition from ``start`` on. A cursor is valid for five minutes."""
        ...

    async def read(self, project: str, cursor: str, max_bytes: int) -> Page:
        """Return records from a cursor on, at most ``max_bytes`` in total, but at least one record if one exists."""
        ...

    def ended(self, stream_id: str) -> Mapping[str, Span] | None:
        """Return the records that the partitions of a deleted stream had; None if they are unknown."""
        ...

    async def put(self, project: str, stream: str, entries: Sequence[Entry], hops: int = 0) -> Sequence[Put]:
        """Store records. ``hops`` is the number of functions that led to them, which a remote endpoint cannot store."""
        ...

    def news(self, project: str, stream: str, partition_id: str, interval: float) -> Callable[[], Awaitable[object]]:
        """Return a function that waits until the partition changes after this call.

        Changes are new records, a split or merge, and the creation of the stream. A remote endpoint reports no changes,
        so the function for one waits ``interval`` seconds.
        """
        ...
