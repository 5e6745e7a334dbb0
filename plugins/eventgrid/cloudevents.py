"""Parser of CloudEvents 1.0 in HTTP requests. Events are JSON objects.

A request has one event in binary or structured mode, or a batch of events.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from engine import InvalidField, PushRequest
from plugins._shared.push import decode_json

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
NEEDED = ("id", "source", "specversion", "type")
_PREFIX = "ce-"

CloudEvent = dict[str, Any]


def read_events(request: PushRequest) -> list[CloudEvent]:
    """Return the events of a request.

    Raises InvalidField if the body is not the JSON that its content type says, if a required attribute is missing, or
    if the version is not 1.0. In binary mode, other content types are allowed.
    """
    kind = request.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind == BATCH:
        return [_checked(event) for event in decode_json(request.body, list[CloudEvent])]
    if kind == STRUCTURED:
        return [_checked(decode_json(request.body, CloudEvent))]
    return [_checked(_binary(request.headers, kind, request.body))]


def _binary(headers: Mapping[bytes, bytes], kind: str, body: bytes) -> CloudEvent:
    """Return the event of a request in binary mode: attributes are the percent-decoded headers, data is the body."""
    named = {name.decode("latin-1"): unquote(value.decode("latin-1")) for name, value in headers.items()}
    event: CloudEvent = {name[len(_PREFIX) :]: value for name, value in named.items() if name.startswith(_PREFIX)}
    if kind:
        event["datacontenttype"] = kind
    if not body:
        return event
    if kind == "application/json" or kind.endswith("+json"):
        return {**event, "data": decode_json(body)}
    try:
        return {**event, "data": body.decode()}
    except UnicodeDecodeError:
        return {**event, "data_base64": base64.b64encode(body).decode()}


def _checked(event: CloudEvent) -> CloudEvent:
    for name in NEEDED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidField(name, event.get(name), "every CloudEvent needs it as a non-empty text")
    if event["specversion"] != "1.0":
        raise InvalidField("specversion", event["specversion"], "must be 1.0")
    return event
