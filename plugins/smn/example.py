"""Example of an event of SMN: a message of a topic."""

from __future__ import annotations

from plugins.smn.message import Message, event_json

_MESSAGE = Message(
    topic_urn="urn:smn:local-1:project1:orders",
    message_id="9f86d081884c7d659a2feaa0c55ad015",
    message='{"order": 7, "state": "paid"}',
    timestamp="2026-03-01T06:30:00Z",
    subject="order 7",
)


def example(kind: str) -> bytes:
    return event_json(_MESSAGE, "urn:fss:local-1:project1:function:default:receipts:latest")
