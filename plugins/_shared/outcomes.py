"""Fields that plugins' destinations read from the JSON record of an outcome (FunctionGraph's documented record)."""

from __future__ import annotations

import msgspec
from msgspec import Struct


class OutcomeContext(Struct, frozen=True, kw_only=True):
    request_id: str
    function_urn: str = ""


class _Outcome(Struct, frozen=True, kw_only=True):
    request_context: OutcomeContext


def context_of(record: bytes) -> OutcomeContext:
    return msgspec.json.decode(record, type=_Outcome).request_context
