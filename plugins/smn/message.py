"""A message of a topic, and the event that it becomes (spec triggers_runtime, 1.2)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from engine import parse_urn


class Message(Struct, frozen=True, kw_only=True):
    topic_urn: str
    message_id: str
    message: str
    timestamp: str  #: of its publication, in ISO 8601
    subject: str = ""
    attributes: Mapping[str, Any] | None = None  #: type and value, by name


def event_json(message: Message, function: str) -> bytes:
    """For the function with this URN, with version or alias. The same message gives the same event."""
    request_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{message.topic_urn}/{message.message_id}")
    body = {
        "topic_urn": message.topic_urn,
        "timestamp": message.timestamp,
        "message_attributes": message.attributes,
        "message": message.message,
        "type": "notification",
        "message_id": message.message_id,
        "subject": message.subject,
    }
    # What a function is subscribed with is its own URN.
    record = {"event_version": "1.0", "smn": body, "event_subscription_urn": function, "event_source": "smn"}
    event = {
        "record": [record],
        "functionname": parse_urn(function, region="", project="").name,
        "requestId": str(request_id),
        "timestamp": _date(message.timestamp),
    }
    return msgspec.json.encode(event)


def moment(timestamp: str) -> float:
    """Raises ValueError."""
    read = datetime.fromisoformat(timestamp)
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def timestamp_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _date(timestamp: str) -> str:
    """As JavaScript's ``Date.toString()`` has it, in UTC."""
    return datetime.fromtimestamp(moment(timestamp), UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000 (UTC)")
