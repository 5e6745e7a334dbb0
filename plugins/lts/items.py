"""Items of FunctionGraph's LTS event. A log line has one or more items, which are encoded when the line is received."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

#: Bytes of ``logs`` in one event. The vendor documents 75 KB, read here as 75,000 bytes.
PIECE = 75_000
LABELS = 2048  #: bytes of labels, which each line may repeat


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    message: str
    time: int  #: milliseconds
    host_name: str
    ip: str
    path: str
    log_uid: str  #: id of the request that sent the line, or of the invocation that wrote it
    line_no: int
    labels: dict[str, Any] = {}


def are_short(labels: Mapping[str, Any]) -> bool:
    return len(msgspec.json.encode(labels)) <= LABELS


def encoded(items: Iterable[Item]) -> Iterator[bytes]:
    """Yield the JSON of each item. An item whose message is too long for an event is split into several items."""
    for item in items:
        text = msgspec.json.encode(item)
        if len(text) <= PIECE - 2:
            yield text
        elif len(item.message) > 1:
            middle = len(item.message) // 2
            parts = item.message[:middle], item.message[middle:]
            yield from encoded(msgspec.structs.replace(item, message=part) for part in parts)


def joined(items: Iterable[bytes]) -> Iterator[bytes]:
    """Yield JSON arrays that contain the encoded items in their order. Each array is short enough for one event."""
    piece, size = list[bytes](), 2
    for item in items:
        if piece and size + len(item) + 1 > PIECE:
            yield b"[%b]" % b",".join(piece)
            piece, size = [], 2
        piece.append(item)
        size += len(item) + 1
    if piece:
        yield b"[%b]" % b",".join(piece)
