"""Checksums of rows, by which bytes that changed on disk are found: of payloads and results by each read.

A checksum is a CRC-32 that begins with the key of its row, so that a body that was moved to another key is found too.
NULL in place of a checksum means that the row was written before there were checksums. Such a row is not checked.
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

from msgspec.msgpack import encode

_WORD = 0xFFFFFFFF


def row_sum(*values: Any) -> int:
    return crc32(encode(values))


def payload_sum(key: int, body: bytes) -> int:
    return crc32(body, key & _WORD)


def result_sum(key: int, body: bytes, log: bytes) -> int:
    return crc32(log, (crc32(body, key & _WORD) + len(body)) & _WORD)  # the length finds a moved end of the body


def payload_problem(key: int, size: int, body: Any, stored: int | None) -> str:
    """Return what is wrong with the payload of a row, or an empty text. ``size`` is its number of bytes."""
    if body is None:
        return "the payload is missing on disk"
    if not isinstance(body, bytes) or len(body) != size:
        return "the payload is damaged on disk: it has another size than it was stored with"
    if stored is not None and stored != payload_sum(key, body):
        return "the payload is damaged on disk: its checksum does not match"
    return ""


def result_is_damaged(key: int, body: Any, log: Any, stored: int | None) -> bool:
    """Return whether a stored result or its log changed on disk."""
    if not (isinstance(body, bytes) and isinstance(log, bytes)):
        return True
    return stored is not None and stored != result_sum(key, body, log)
