"""Lines as the items that an event tells of them (spec triggers_runtime, 1.5), made when they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

#: Bytes of ``logs`` in one event: 75 KB, in the stricter reading.
PIECE = 75_000
LABELS = 2048  #: bytes of labels, which may be told with each line


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    message: str
    time: int  #: milliseconds
    host_name: str
    ip: str
    path: str
    log_uid: str  #: of the request that sent it, or of the invocation that wrote it
    line_no: int
    labels: dict[str, Any] = {}


def are_short(labels: Mapping[str, Any]) -> bool:
    return len(msgspec.json.encode(labels)) <= LABELS


def encoded(items: Iterable[Item]) -> Iterator[bytes]:
    """JSON of each. What is too long for an event becomes several, with parts of its message."""
    for item in items:
        text = msgspec.json.encode(item)
        if len(text) <= PIECE - 2:
            yield text
        elif len(item.message) > 1:
            middle = len(item.message) // 2
            parts = item.message[:middle], item.message[middle:]
            yield from encoded(msgspec.structs.replace(item, message=part) for part in parts)


def joined(items: Iterable[bytes]) -> Iterator[bytes]:
    """JSON arrays of them, each as long as an event may have it."""
    piece, size = list[bytes](), 2
    for item in items:
        if piece and size + len(item) + 1 > PIECE:
            yield b"[%b]" % b",".join(piece)
            piece, size = [], 2
        piece.append(item)
        size += len(item) + 1
    if piece:
        yield b"[%b]" % b",".join(piece)
