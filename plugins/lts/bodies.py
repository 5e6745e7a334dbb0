"""Bodies and queries of requests to the log service's API, as the vendor's SDK sends them (huaweicloudsdklts)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from engine import PushRequest
from plugins._shared.vendor_api import Offer, Table
from plugins.lts.lines import LABELS, are_short
from plugins.lts.problems import BAD_REQUEST, LtsProblem, not_offered

LIMIT = 5 << 20  #: bytes of a body, both as received and decompressed
MOST = 10_000  #: lines of a body; more small lines would delay other requests

ResourceName = Annotated[str, Meta(pattern=r"^[^\s./][^/]{0,63}\Z")]
Days = Annotated[int, Meta(ge=1, le=365)]
Message = Annotated[str, Meta(max_length=1 << 20)]
Nanoseconds = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] | Annotated[str, Meta(pattern=r"^[0-9]{1,19}\Z")]


class Tag(Struct, frozen=True, kw_only=True):
    key: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Annotated[str, Meta(max_length=255)] | None = None


class CreateGroup(Struct, frozen=True, kw_only=True):
    log_group_name: ResourceName
    ttl_in_days: Days
    log_group_name_alias: Annotated[str, Meta(max_length=64)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=20)] | None = None


class CreateStream(Struct, frozen=True, kw_only=True):
    log_stream_name: ResourceName
    ttl_in_days: Days | None = None
    log_stream_name_alias: Annotated[str, Meta(max_length=64)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=20)] | None = None


class Change(Struct, frozen=True, kw_only=True):
    ttl_in_days: Days


Milliseconds = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)] | Annotated[str, Meta(pattern=r"^[0-9]{1,16}\Z")]


class Search(Struct, frozen=True, kw_only=True):
    """Request for lines of a stream. ``search_type`` and ``is_count`` of the vendor's API are ignored."""

    start_time: Milliseconds
    end_time: Milliseconds
    keywords: Annotated[str, Meta(max_length=1000)] | None = None  #: text that a line has
    labels: dict[str, str] | None = None
    limit: Annotated[int, Meta(ge=1, le=5000)] = 50
    is_desc: bool = False  #: newest first
    line_num: Annotated[str, Meta(pattern=r"^[0-9]{0,18}\Z")] | None = None  #: line after which the page begins

    @property
    def after(self) -> int | None:
        return int(self.line_num) if self.line_num else None

    @property
    def start(self) -> int:
        return int(self.start_time)

    def matches(self, text: str, time: int, labels: dict[str, Any]) -> bool:
        return (
            self.start <= time <= int(self.end_time)
            and (self.keywords or "") in text
            and all(labels.get(name) == value for name, value in (self.labels or {}).items())
        )


class CreateGroupQuery(Struct, frozen=True, kw_only=True):
    enterprise_project_id: Annotated[str, Meta(max_length=64)] = ""


class ActionTag(Tag, frozen=True, kw_only=True):
    tags_to_streams_enable: bool = False  #: change the tag of the group's streams too


class ChangeTags(Struct, frozen=True, kw_only=True):
    action: Literal["create", "delete"]
    tags: Annotated[list[ActionTag], Meta(min_length=1, max_length=20)]


class FindTransfers(Struct, frozen=True, kw_only=True):
    log_group_name: str = ""


class FindStreams(Struct, frozen=True, kw_only=True):
    log_group_name: str = ""
    log_stream_name: str = ""


class Contents(Struct, frozen=True, kw_only=True):
    """Body of a request with lines that share one time.

    Each line counts as one nanosecond later than the one before.
    """

    log_time_ns: Nanoseconds
    contents: Annotated[list[Message], Meta(min_length=1, max_length=MOST)]
    labels: dict[str, Any] | None = None

    def timed(self) -> list[tuple[int, str]]:
        """Return the lines, each as its time in nanoseconds since the epoch and its text."""
        first = int(self.log_time_ns)
        return [(first + index, text) for index, text in enumerate(self.contents)]


class TimedLine(Struct, frozen=True, kw_only=True):
    log_time_ns: Nanoseconds
    log: Message


class TimedContents(Struct, frozen=True, kw_only=True):
    """Body of a request with lines that each have their own time."""

    contents: Annotated[list[TimedLine], Meta(min_length=1, max_length=MOST)]
    labels: dict[str, Any] | None = None

    def timed(self) -> list[tuple[int, str]]:
        return [(int(line.log_time_ns), line.log) for line in self.contents]


def table(offers: Mapping[str, Offer]) -> Table:
    """Return a table of operations whose requests may be compressed."""
    return Table(offers, not_offered, _invalid, unpack=unpacked)


def checked_labels(labels: dict[str, Any] | None) -> dict[str, Any]:
    """Return the labels of lines, or an empty dict for None.

    Raises LtsProblem if they have more than ``LABELS`` bytes.
    """
    if labels and not are_short(labels):
        raise _bad(f"labels may have {LABELS} bytes")
    return labels or {}


def unpacked(request: PushRequest) -> bytes:
    """Return the decompressed body of a request.

    Raises LtsProblem if the encoding is unknown, or if the body is invalid or decompresses to more than ``LIMIT``
    bytes.
    """
    body, encoding = request.body, request.headers.get(b"content-encoding", b"").lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding == b"gzip":
        return _gunzipped(body)
    if encoding == b"snappy":
        return _unsnapped(body)
    raise _bad(f"Content-Encoding may be gzip or snappy, not {encoding.decode('latin-1')}")


def _gunzipped(body: bytes) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        plain = unpacking.decompress(body, LIMIT + 1)
    except zlib.error as error:
        raise _bad(f"The body is not valid gzip: {error}") from None
    if len(plain) > LIMIT:
        raise _too_large()
    if not unpacking.eof or unpacking.unused_data:
        raise _bad("The body is not valid gzip: it is cut short, or has more data behind its end")
    return plain


def _unsnapped(body: bytes) -> bytes:
    """Return the body decompressed from snappy's block format, which the vendor's SDKs send."""
    try:
        from cramjam import DecompressionError, snappy
    except ImportError:
        raise _bad(
            "snappy needs the extra lts where the engine runs (pip install '.[lts]' in the clone): send gzip"
        ) from None
    try:
        if snappy.decompress_raw_len(body) > LIMIT:
            raise _too_large()
        return bytes(snappy.decompress_raw(body))
    except DecompressionError as error:
        raise _bad(f"The body is not a valid snappy block: {error}") from None


def _too_large() -> LtsProblem:
    return _bad(f"A body may have {LIMIT} bytes when it is unpacked: send fewer lines at a time")


def _invalid(problem: str) -> LtsProblem:
    return _bad(f"Failed to validate the request: {problem}")


def _bad(message: str) -> LtsProblem:
    return LtsProblem(BAD_REQUEST, message)
