"""CloudEvents 1.0: their parser in HTTP requests, and the events that functions get. Events are JSON objects.

A request has one event in binary or structured mode, or a batch of events.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from engine import InvalidField, PushRequest
from plugins._shared.push import decode_json

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
NEEDED = ("id", "source", "specversion", "type")
_PREFIX = b"ce-"
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')

CloudEvent = dict[str, Any]


def read_events(request: PushRequest) -> list[CloudEvent]:
    """Return the events of a request.

    Raises InvalidField if the body is not the JSON that its content type says, if a required attribute is missing, or
    if the version is not 1.0. In binary mode, other content types are allowed.
    """
    kind = request.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if kind == BATCH:
        return [checked(event) for event in decode_json(request.body, list[CloudEvent])]
    if kind == STRUCTURED:
        return [checked(decode_json(request.body, CloudEvent))]
    return [checked(_binary(request.headers, kind, request.body))]


def _binary(headers: Mapping[bytes, bytes], kind: str, body: bytes) -> CloudEvent:
    """Return the event of a request in binary mode: attributes are the decoded headers, data is the body."""
    event: CloudEvent = {
        name[len(_PREFIX) :].decode("latin-1"): _text(name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    if kind:
        event["datacontenttype"] = headers[b"content-type"].decode("latin-1")
    if not body:
        return event
    if kind == "application/json" or kind.endswith("+json"):
        return {**event, "data": decode_json(body)}
    try:
        return {**event, "data": body.decode()}
    except UnicodeDecodeError:
        return {**event, "data_base64": base64.b64encode(body).decode()}


def _text(name: bytes, value: bytes) -> str:
    """Return the text of a header (HTTP binding of CloudEvents, 3.1.3.2).

    Some SDKs send UTF-8 without percent-encoding, others latin-1. Raises InvalidField if percent-encoded bytes are not
    UTF-8.
    """
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    if quoted := _QUOTED.fullmatch(text):
        text = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidField(name.decode("latin-1"), text, "its percent-encoded bytes must be UTF-8") from None


def checked(event: CloudEvent) -> CloudEvent:
    """Return the event. Raises InvalidField if a required attribute is missing, or if the version is not 1.0."""
    for name in NEEDED:
        if not isinstance(event.get(name), str) or not event[name]:
            raise InvalidField(name, event.get(name), "every CloudEvent needs it as a non-empty text")
    if event["specversion"] != "1.0":
        raise InvalidField("specversion", event["specversion"], "must be 1.0")
    return event


def event_json(received: CloudEvent, *, encode_key: bool) -> bytes:
    """Return the JSON that functions get. ``encode_key`` percent-encodes the key of an OBS object."""
    complete = {"datacontenttype": "application/json", **received}  # EventGrid adds it
    return msgspec.json.encode(_encoded(complete) if encode_key else complete)


def object_of(event: CloudEvent) -> tuple[str, str]:
    """Return the bucket and the key of the OBS object that an event is about.

    Other events have an empty bucket, and their subject as key.
    """
    match event:
        case {"data": {"obs": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}}:
            return bucket, key
    subject = event.get("subject")
    return "", subject if isinstance(subject, str) else ""


def _encoded(event: CloudEvent) -> CloudEvent:
    """Return the event with the key of its OBS object, if any, percent-encoded."""
    match event:
        case {"data": {"obs": {"object": {"key": str(key)}}}}:
            data: dict[str, Any] = event["data"]
            obs = {**data["obs"], "object": {**data["obs"]["object"], "key": quote(key, safe="")}}
            return {**event, "data": {**data, "obs": obs}}
    return event


def example(kind: str) -> bytes:
    """Return the event of an object that was stored in OBS, as an example."""
    stored = {"key": "in/cat.jpg", "size": 51200, "eTag": "9a0364b9e99bb480dd25e1f0284c8555", "versionId": "null"}
    received = {
        "id": "5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
        "source": "HC.OBS.DWR",
        "specversion": "1.0",
        "type": "OBS:DWR:ObjectCreated:PUT",
        "subject": "in/cat.jpg",
        "time": "2026-03-01T06:30:00.533Z",
        "ttl": "4000",
        "data": {
            "eventVersion": "3.0",
            "eventSource": "OBS",
            "eventName": "ObjectCreated:Put",
            "eventRegion": "local-1",
            "eventTime": "2026-03-01T06:30:00.533Z",
            "userIdentity": {"ID": "project1"},
            "requestParameters": {"sourceIPAddress": "192.0.2.9"},
            "obs": {
                "Version": "1.0",
                "configurationId": "new-images",
                "bucket": {"name": "photos", "bucket": "photos", "arn": "", "ownerIdentity": {"ID": "project1"}},
                "object": {**stored, "sequencer": "0000018DF7A1B2C30000000000000001", "oldpsxpth": ""},
            },
        },
    }
    return event_json(received, encode_key=False)
