"""Decoding of messages' properties in the client library that skips invalid values.

Brokers forward properties and routing keys without checking them: ids that are bytes, times in microseconds, tables
outside the specification. The client closes its connection at a value that it cannot decode; the broker then delivers
that message again first, endlessly. Triggers use the message id only, so values that cannot be decoded are skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Read = Callable[[bytes], tuple[int, Any]]  #: returns the number of read bytes, and the value


def install_lenient_decoders() -> None:
    """Replace the client library's decoders for all connections of this process. Valid values are decoded as before."""
    from pamqp import decode

    skips: dict[str, Read] = {"shortstr": _skip_text, "table": _skip_table, "timestamp": _skip_time}
    for kind, skip in skips.items():
        read = decode.METHODS[kind]
        if not isinstance(read, partial):
            decode.METHODS[kind] = partial(_read, read, skip)


def _read(read: Read, skip: Read, data: bytes) -> tuple[int, Any]:
    try:
        return read(data)
    except Exception:  # the client raises many types of errors for invalid values
        return skip(data)


def _skip_text(data: bytes) -> tuple[int, str]:
    """Decode a text, with escapes for invalid bytes.

    Equal bytes become equal texts, so a message id still identifies a message.
    """
    end = 1 + data[0]
    return end, data[1:end].decode("utf-8", "backslashreplace")


def _skip_table(data: bytes) -> tuple[int, dict[str, Any]]:
    return 4 + int.from_bytes(data[:4], "big"), {}


def _skip_time(data: bytes) -> tuple[int, None]:
    return 8, None
