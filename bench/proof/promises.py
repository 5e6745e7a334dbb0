"""Promises that an engine made by its answers. Each must be kept by every state of the disk after its position."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

NEVER = 1 << 62


class Promise(Struct, frozen=True, kw_only=True, tag=True):
    position: int = 0  #: bytes of the recording when the answer had been read


class Accepted(Promise, frozen=True, kw_only=True):
    """Answer 202 to an asynchronous invocation."""

    request_id: str
    function: str
    payload: str
    key: str = ""  #: idempotency key


class Put(Promise, frozen=True, kw_only=True):
    """Record in a stream of DIS."""

    stream: str
    partition: int
    sequence: int
    data: str


class Line(Promise, frozen=True, kw_only=True):
    """Log line of LTS, whose text is unique."""

    text: str


class Published(Promise, frozen=True, kw_only=True):
    """Message of SMN, whose text is unique, and a function that is subscribed to its topic."""

    function: str
    text: str


class Uploaded(Promise, frozen=True, kw_only=True):
    """Code of a function."""

    function: str
    files: dict[str, str]
    until: int = NEVER  #: position at which the request for the next change of this function was sent


class Deleted(Promise, frozen=True, kw_only=True):
    """Deleted function."""

    function: str


KINDS = (Accepted, Put, Line, Published, Uploaded, Deleted)
Any = Accepted | Put | Line | Published | Uploaded | Deleted


def due(promises: Iterable[Any], position: int) -> list[Any]:
    """Return the promises that a state at ``position`` must keep."""
    return [
        promise
        for promise in promises
        if promise.position <= position and not (isinstance(promise, Uploaded) and promise.until <= position)
    ]


def save(promises: Iterable[Any], file: Path) -> None:
    file.write_bytes(msgspec.json.encode(list(promises)))


def read(file: Path) -> list[Any]:
    return msgspec.json.decode(file.read_bytes(), type=list[Any])
