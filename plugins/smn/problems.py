"""Refusals of requests to SMN: HTTP status and the vendor's error code."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from engine import Reply
from plugins._shared.vendor_api import VendorProblem


class SmnProblem(VendorProblem):
    def reply(self) -> Reply:
        return reply_of(self.status, {"code": self.code, "message": self.message})


def reply_of(status: int, body: Mapping[str, Any]) -> Reply:
    """Return a reply with a new ``request_id`` in its body, as all replies about topics have."""
    return Reply(status=status, body=msgspec.json.encode({"request_id": uuid.uuid4().hex, **body}))


def bad_request(message: str, code: str = "SMN.0005") -> SmnProblem:
    return SmnProblem(code, message)


def not_offered(status: int, problem: str) -> SmnProblem:
    return SmnProblem("SMN.0001", problem, status)


def no_topic(urn: str) -> SmnProblem:
    return SmnProblem("SMN.0006", f"Topic not found. [{urn[:300]}]", 404)
