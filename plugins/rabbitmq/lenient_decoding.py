"""Makes the client bear what publishers put beside a message.

A broker hands on properties and routing keys as they come: ids that are bytes, times in microseconds, tables that no
specification knows. The client ends its connection at what it cannot decode, and the broker sends that message again,
before all others, for ever. Of what is looked at here that is only the id; so what cannot be decoded is skipped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

Read = Callable[[bytes], tuple[int, Any]]  #: gives the bytes that were read, and what they say


def install_lenient_decoders() -> None:
    """For all connections of this process; what can be decoded is decoded as before."""
    from pamqp import decode

    skips: dict[str, Read] = {"shortstr": _skip_text, "table": _skip_table, "timestamp": _skip_time}
    for kind, skip in skips.items():
        read = decode.METHODS[kind]
        if not isinstance(read, partial):
            decode.METHODS[kind] = partial(_read, read, skip)


def _read(read: Read, skip: Read, data: bytes) -> tuple[int, Any]:
    try:
        return read(data)
    except Exception:  # the client has many ways to say that it cannot read something
        return skip(data)


def _skip_text(data: bytes) -> tuple[int, str]:
    """The same bytes are the same text, so that an id still tells messages apart."""
    end = 1 + data[0]
    return end, data[1:end].decode("utf-8", "backslashreplace")


def _skip_table(data: bytes) -> tuple[int, dict[str, Any]]:
    return 4 + int.from_bytes(data[:4], "big"), {}


def _skip_time(data: bytes) -> tuple[int, None]:
    return 8, None
