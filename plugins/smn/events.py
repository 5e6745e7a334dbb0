"""Message of a topic, and the event that functions get for it (FunctionGraph's documented SMN event)."""

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
    timestamp: str  #: time of publication in ISO 8601
    subject: str = ""
    attributes: Mapping[str, Any] | None = None  #: type and value of each, keyed by name


def event_json(message: Message, function: str) -> bytes:
    """Return the event of a message for a function, which is given by its URN with version or alias.

    The result depends only on the arguments, so a repeated message has the same event.
    """
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
    # Functions subscribe with their own URN.
    record = {"event_version": "1.0", "smn": body, "event_subscription_urn": function, "event_source": "smn"}
    event = {
        "record": [record],
        "functionname": parse_urn(function, region="", project="").name,
        "requestId": str(request_id),
        "timestamp": _date(message.timestamp),
    }
    return msgspec.json.encode(event)


def moment(timestamp: str) -> float:
    """Return an ISO 8601 timestamp as seconds since the epoch.

    A timestamp without a zone is UTC. Raises ValueError if the text is no timestamp.
    """
    parsed = datetime.fromisoformat(timestamp)
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def timestamp_of(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _date(timestamp: str) -> str:
    """Return a timestamp in UTC in the format of JavaScript's ``Date.toString()``, which the event uses."""
    return datetime.fromtimestamp(moment(timestamp), UTC).strftime("%a %b %d %Y %H:%M:%S GMT+0000 (UTC)")


def example(kind: str) -> bytes:
    """Return the event of a message, as an example."""
    message = Message(
        topic_urn="urn:smn:local-1:project1:orders",
        message_id="9f86d081884c7d659a2feaa0c55ad015",
        message='{"order": 7, "state": "paid"}',
        timestamp="2026-03-01T06:30:00Z",
        subject="order 7",
    )
    return event_json(message, "urn:fss:local-1:project1:function:default:receipts:latest")
