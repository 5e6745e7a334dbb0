"""Event of OBS for functions: one record in the shape of S3's notifications (FunctionGraph's documented OBS event)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from plugins.obs.store import StoredObject


class ObjectEvent(Struct, frozen=True, kw_only=True):
    """Creation or removal of one object. Fields that the store did not report are empty."""

    event: str  #: for example ``ObjectCreated:Put``, without the prefix ``s3:``
    bucket: str
    key: str  #: not encoded
    time: str
    object: Mapping[str, Any]  #: fields of ``s3.object`` except the key
    region: str = ""
    source_ip: str = ""
    principal: str = ""
    owner: str = ""
    answers: Mapping[str, Any] = {}  #: ``responseElements``
    id: str = ""  #: the same for repeated notifications of one event


def event_json(event: ObjectEvent, rule: str, region: str) -> bytes:
    """Return the JSON that the function gets.

    ``rule`` is the trigger's name. The key is percent-encoded, including its slashes.
    """
    bucket = {
        "name": event.bucket,
        "ownerIdentity": {"PrincipalId": event.owner},
        "arn": f"arn:aws:s3:::{event.bucket}",
    }
    record = {
        "eventVersion": "2.0",
        "eventSource": "aws:s3",
        "awsRegion": event.region or region,
        "eventTime": event.time,
        "eventName": event.event,
        "userIdentity": {"principalId": event.principal},
        "requestParameters": {"sourceIPAddress": event.source_ip},
        "responseElements": {"x-amz-request-id": "", "x-amz-id-2": "", **event.answers},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": rule,
            "bucket": bucket,
            "object": {"key": quote(event.key, safe=""), **event.object},
        },
    }
    return msgspec.json.encode({"Records": [record]})


def created_event(bucket: str, entry: StoredObject) -> ObjectEvent:
    """Return the creation event of an object that a comparison of the bucket has found.

    Its etag shows whether it was uploaded in parts. The user who created it is unknown.
    """
    event = "ObjectCreated:CompleteMultipartUpload" if "-" in entry.etag else "ObjectCreated:Put"
    fields = {"eTag": entry.etag, "size": entry.size, "versionId": "null", "sequencer": _sequencer(entry.modified_at)}
    return ObjectEvent(event=event, bucket=bucket, key=entry.key, time=format_time(entry.modified_at), object=fields)


def removed_event(bucket: str, key: str, now: float) -> ObjectEvent:
    fields = {"versionId": "null", "sequencer": _sequencer(now)}
    return ObjectEvent(event="ObjectRemoved:Delete", bucket=bucket, key=key, time=format_time(now), object=fields)


def format_time(seconds: float) -> str:
    """Return seconds since the epoch as a UTC time in ISO 8601, with milliseconds and a Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _sequencer(seconds: float) -> str:
    return f"{int(seconds * 1e9):016X}"


def example(kind: str) -> bytes:
    etag = "9a0364b9e99bb480dd25e1f0284c8555"
    entry = StoredObject(key="in/cat.jpg", size=51_200, etag=etag, modified_at=1_772_346_600.123)
    return event_json(created_event("photos", entry), "new-images", "local-1")
