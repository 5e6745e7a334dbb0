"""Delivery records: outcomes in the form in which destinations receive them.

The form is FunctionGraph's documented record of asynchronous invocations.
"""

from __future__ import annotations

from typing import Any

import msgspec

from engine.functions.catalog import Catalog
from engine.model import Code, Record, State
from engine.model.clock import rfc3339

LARGEST = 256 << 10  #: bytes

_CONDITIONS = {
    Code.EXPIRED: "EventAgeExceeded",
    Code.FUNCTION_MISSING: "FunctionNotFound",
    Code.ENGINE: "SystemError",
    Code.OVERLOAD: "SystemError",
}


class DeliveryRecords:
    """Encoder of delivery records with at most ``largest`` bytes, the limit for asynchronous bodies."""

    def __init__(self, catalog: Catalog, region: str, largest: int = LARGEST) -> None:
        self._catalog, self._region, self._largest = catalog, region, largest

    def project_of(self, function_id: int) -> str:
        """Return the project of a function; empty if it was deleted."""
        return self._catalog.project_of(function_id) or ""

    def encode(self, record: Record) -> bytes:
        """Return the delivery record of an invocation as JSON.

        If it exceeds the limit, ``request_payload`` is left empty, then also ``response_payload``. A delivery record
        holds both, so without the limit an event could double in size at every hop of a chain of functions.
        """
        function = self._catalog.resolve(record.function_id, record.version)
        ok = record.state is State.SUCCESS
        condition = "" if ok else _CONDITIONS.get(Code(record.code), "UnhandledInvocationError")
        document: dict[str, Any] = {
            "timestamp": rfc3339(record.started_at or record.accepted_at),
            "request_context": {
                "request_id": record.request_id,
                "function_urn": str(function.urn(self._region)) if function else "",
                "condition": condition,
                "approximate_invoke_count": max(0, record.attempt - 1),
            },
            "request_payload": record.payload.decode(errors="replace"),
            "response_context": {
                "status_code": 200 if ok else 500,
                "function_error": _error(record),
            },
            "response_payload": record.result.decode(errors="replace"),
        }
        for payload in ("request_payload", "response_payload"):
            if len(encoded := msgspec.json.encode(document)) <= self._largest:
                return encoded
            document[payload] = ""
        return msgspec.json.encode(document)


def _error(record: Record) -> str:
    """Return the error of a function. A success has none, even if its result was too large to be kept."""
    if "result" in record.damaged and not record.message:
        return "the result is damaged on disk and left out"
    return "" if record.state is State.SUCCESS else record.message
