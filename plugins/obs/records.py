"""The event of OBS: one record of the shape that S3 has, as spec triggers_runtime, 1.3, has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from plugins.obs.store import StoredObject


class Happening(Struct, frozen=True, kw_only=True):
    """Something that happened to one object. What its source does not know is empty."""

    event: str  #: ``ObjectCreated:Put``: never with ``s3:`` before it
    bucket: str
    key: str  #: as it is, not encoded
    time: str
    object: Mapping[str, Any]  #: fields of ``s3.object`` beside the key
    region: str = ""
    source_ip: str = ""
    principal: str = ""
    owner: str = ""
    answers: Mapping[str, Any] = {}  #: ``responseElements``
    id: str = ""  #: the same whenever the same happening is told again


def event_json(happening: Happening, rule: str, region: str) -> bytes:
    """What the function gets. ``rule`` names the trigger; keys are URL-encoded, slashes too."""
    bucket = {
        "name": happening.bucket,
        "ownerIdentity": {"PrincipalId": happening.owner},
        "arn": f"arn:aws:s3:::{happening.bucket}",
    }
    record = {
        "eventVersion": "2.0",
        "eventSource": "aws:s3",
        "awsRegion": happening.region or region,
        "eventTime": happening.time,
        "eventName": happening.event,
        "userIdentity": {"principalId": happening.principal},
        "requestParameters": {"sourceIPAddress": happening.source_ip},
        "responseElements": {"x-amz-request-id": "", "x-amz-id-2": "", **happening.answers},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": rule,
            "bucket": bucket,
            "object": {"key": quote(happening.key, safe=""), **happening.object},
        },
    }
    return msgspec.json.encode({"Records": [record]})


def found(bucket: str, one: StoredObject) -> Happening:
    """Of an object that a list shows: only its etag tells how it came, and nothing by whom."""
    event = "ObjectCreated:CompleteMultipartUpload" if "-" in one.etag else "ObjectCreated:Put"
    told = {"eTag": one.etag, "size": one.size, "versionId": "null", "sequencer": _sequencer(one.modified_at)}
    return Happening(event=event, bucket=bucket, key=one.key, time=moment(one.modified_at), object=told)


def gone(bucket: str, key: str, now: float) -> Happening:
    told = {"versionId": "null", "sequencer": _sequencer(now)}
    return Happening(event="ObjectRemoved:Delete", bucket=bucket, key=key, time=moment(now), object=told)


def moment(seconds: float) -> str:
    """In milliseconds, with a Z."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _sequencer(seconds: float) -> str:
    return f"{int(seconds * 1e9):016X}"
