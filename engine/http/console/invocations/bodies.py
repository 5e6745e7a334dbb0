"""Events and results as texts of a page: JSON with line breaks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from engine.http.api.decoding import is_deeper

SHOWN = 64 << 10  #: bytes shown of an event, and of a result
DEEP = 32  #: levels of nesting up to which JSON gets line breaks


class Body(Struct, frozen=True, kw_only=True):
    """Event or result, as the page shows it."""

    text: str
    size: int  #: bytes as stored
    left: int  #: bytes that are not shown


class Header(Struct, frozen=True):
    name: str
    value: str


class _Request(Struct, frozen=True, kw_only=True):
    """Event that a gateway has made of a request."""

    headers: dict[str, str]
    method: str = msgspec.field(name="httpMethod")


def body_of(content: bytes) -> Body:
    """Return an event or a result. JSON gets line breaks if all of it is shown."""
    left = max(0, len(content) - SHOWN)
    return Body(
        text=content[:SHOWN].decode("utf-8", "replace") if left else pretty(content), size=len(content), left=left
    )


def pretty(content: bytes) -> str:
    """Return JSON with line breaks, and any other text as it is, as well as JSON that is mostly indents then."""
    text = b""
    if not is_deeper(content, DEEP):
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            text = msgspec.json.format(content, indent=2)
    return (text if 0 < len(text) <= 8 * len(content) + 4096 else content).decode("utf-8", "replace")


def headers_of(event: bytes) -> Sequence[Header]:
    """Return the HTTP headers in the event of a gateway; nothing for other events."""
    try:
        found = msgspec.json.decode(event[:SHOWN], type=_Request)
    except (msgspec.DecodeError, RecursionError):
        return ()
    return [Header(name, value) for name, value in sorted(found.headers.items())]
