"""Partition cursors, which clients of the streams API read from. A cursor's text encodes all its data."""

from __future__ import annotations

import base64
import binascii

import msgspec
from msgspec import Struct

from plugins.dis.problems import BAD_REQUEST, EXPIRED_CURSOR, DisProblem

#: Seconds for which a cursor is valid (DIS API: GetCursor).
LIFE = 300.0


class Cursor(Struct, frozen=True, array_like=True):
    stream_id: str
    number: int  #: number of the partition
    position: int  #: sequence number of the next record
    made_at: float


def write_cursor(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def read_cursor(text: str, now: float) -> Cursor:
    """Return the decoded cursor. Raises DisProblem if the text is not a cursor, or is older than ``LIFE`` seconds."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        cursor = msgspec.msgpack.decode(base64.urlsafe_b64decode(padded), type=Cursor)
    except (UnicodeError, binascii.Error, msgspec.DecodeError):
        raise DisProblem(BAD_REQUEST, "partition-cursor is invalid: request one at cursors") from None
    if now - cursor.made_at > LIFE:
        raise DisProblem(EXPIRED_CURSOR, f"Expired partition cursor: it is valid for {LIFE:.0f} s, request a new one")
    return cursor
