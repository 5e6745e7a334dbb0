"""Fields that plugins' destinations read from the JSON record of an outcome (FunctionGraph's documented record).

Destinations write the number of functions that led to the outcome beside it, and sources read it, so that loops end.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

HOPS = "functiond-hops"  #: name of the number in headers and in metadata of objects


class OutcomeContext(Struct, frozen=True, kw_only=True):
    request_id: str
    function_urn: str = ""


class _Outcome(Struct, frozen=True, kw_only=True):
    request_context: OutcomeContext


def context_of(record: bytes) -> OutcomeContext:
    return msgspec.json.decode(record, type=_Outcome).request_context


def read_hops(value: bytes | str | None) -> int:
    """Return the number that somebody has sent; 0 if it is none."""
    text = value.decode("latin-1") if isinstance(value, bytes) else value or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0
