"""How sources and destinations reach streams, be they the engine's own or of an endpoint elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Literal, Protocol

from msgspec import Meta, Struct

CursorType = Literal["AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"]


class Entry(Struct, frozen=True, kw_only=True):
    """A record to be put; in JSON, ``data`` is base64. It goes to the partition that ``partition_id`` names, else to
    that of the hash, else to that of the key's hash."""

    data: bytes
    partition_key: Annotated[str, Meta(max_length=256)] | None = None
    explicit_hash_key: str | None = None
    partition_id: str | None = None


class Put(Struct, frozen=True, kw_only=True):
    """What became of an entry: its place, or an error."""

    partition_id: str | None = None
    sequence_number: str | None = None
    error_code: str | None = None
    error_message: str | None = None


class Record(Struct, frozen=True, kw_only=True):
    sequence_number: str
    data: bytes
    partition_key: str | None = None
    timestamp: int = 0  #: milliseconds


class Page(Struct, frozen=True, kw_only=True):
    records: list[Record]
    next_partition_cursor: str


class Start(Struct, frozen=True, kw_only=True):
    """From where on a partition is read."""

    type: CursorType
    sequence_number: str = ""
    timestamp: int = 0  #: milliseconds


class Part(Struct, frozen=True, kw_only=True):
    """A partition as a reader sees it. What a split or merger closes is read to its end before its children."""

    id: str
    open: bool
    expired: bool = False  #: closed so long ago that nothing is left in it
    parents: tuple[str, ...] = ()


class Layout(Struct, frozen=True, kw_only=True):
    stream_id: str
    parts: tuple[Part, ...]


class StreamAccess(Protocol):
    """All raise DisProblem where DIS refuses; a real endpoint also what its connection raises."""

    fresh_for: float  #: seconds that a reader may go on with a layout it has

    async def layout(self, project: str, stream: str) -> Layout: ...

    async def cursor(self, project: str, stream: str, partition_id: str, start: Start) -> str:
        """Good for five minutes."""
        ...

    async def read(self, project: str, cursor: str, max_bytes: int) -> Page:
        """At least one record, if there is one."""
        ...

    async def put(self, project: str, stream: str, entries: Sequence[Entry]) -> Sequence[Put]: ...

    def news(self, project: str, stream: str, partition_id: str, interval: float) -> Callable[[], Awaitable[object]]:
        """What waits for something new since this call: records, a split, the stream itself."""
        ...
