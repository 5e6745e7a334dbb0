"""Parser of the notifications that object stores send by HTTP: S3's records, as MinIO, Ceph, moto and OBS write them.

Records are the request's body, or the message in a notification of SNS or SMN.

Senders encode keys differently. The spellings ``in%2Fa+b``, ``in/a+b`` and ``in/a%20b`` are decoded to one key. Ceph
sends keys without encoding, so its keys are used unchanged. So is, from any sender, a key with characters that encoded
keys never have, such as a blank.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import msgspec
from msgspec import Struct

from engine import InvalidField
from plugins._shared.push import decode_json
from plugins.obs.records import ObjectEvent, format_time

#: Characters of an encoded key.
_ENCODED = re.compile(r"(?:[\w.~!*'()/+:@&=$,;-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_OBJECT_FIELDS = ("eTag", "size", "versionId", "sequencer")
_DEPTH = 3  #: maximum nesting of envelopes


class Confirmation(Struct, frozen=True, kw_only=True):
    """Request by a topic of SNS or SMN to confirm the subscription of this engine, by a GET of ``url``."""

    url: str


def read_notification(body: bytes) -> list[ObjectEvent] | Confirmation:
    """Return the events of a request's body, or the request to confirm a subscription.

    A test message and the message that a subscription has ended have no events. Raises InvalidField for other bodies,
    and for invalid records.
    """
    for _ in range(_DEPTH):
        match decode_json(body):
            case {"Records": [*records]}:
                return [_object_event(record) for record in records]
            case {"Event": "s3:TestEvent"}:
                return []
            case {"Type": "SubscriptionConfirmation", "SubscribeURL": str(url)}:
                return Confirmation(url=url)
            case {"type": "SubscriptionConfirmation", "subscribe_url": str(url)}:
                return Confirmation(url=url)
            case {"Type": "Notification", "Message": str(message)} | {"type": "Notification", "message": str(message)}:
                body = message.encode(errors="surrogatepass")
            case {"Type": "UnsubscribeConfirmation"} | {"type": "UnsubscribeConfirmation"}:
                return []
            case _:
                break
    raise InvalidField("body", _start(body), "must have Records, as notifications of S3 do, or be a message with them")


def _object_event(record: Any) -> ObjectEvent:
    match record:
        case {"eventName": str(name), "s3": subject} | {"eventName": str(name), "obs": subject}:
            pass
        case _:
            raise InvalidField("Records", _start(record), "each needs eventName, and s3 with bucket and object")
    match subject:
        case {"bucket": {"name": str(bucket), **owner}, "object": {"key": str(key), **fields}}:
            pass
        case _:
            raise InvalidField("s3", _start(subject), "needs bucket.name and object.key")
    return ObjectEvent(
        event=name.removeprefix("s3:"),
        bucket=bucket,
        key=_key(key, str(record.get("eventSource", ""))),
        time=_time(record.get("eventTime")),
        object={name: fields[name] for name in _OBJECT_FIELDS if fields.get(name) not in (None, "")},
        region=_text(record, "awsRegion"),
        source_ip=_text(record, "requestParameters", "sourceIPAddress"),
        principal=_text(record, "userIdentity", "principalId"),
        owner=_text(owner, "ownerIdentity", "principalId") or _text(owner, "ownerIdentity", "PrincipalId"),
        answers={name: _text(record, "responseElements", name) for name in ("x-amz-request-id", "x-amz-id-2")},
        id=hashlib.sha256(msgspec.json.encode(record)).hexdigest(),
    )


def _key(key: str, source: str) -> str:
    if source.startswith("ceph") or not _ENCODED.fullmatch(key):
        return key
    try:
        return unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        return key


def _time(text: Any) -> str:
    """Return an ISO 8601 time as text in UTC with milliseconds. Raises InvalidField if it is not such a time."""
    try:
        parsed = datetime.fromisoformat(text)
        return format_time((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError):
        raise InvalidField("eventTime", _start(text), "must look like 2026-03-01T06:30:00.123Z") from None


def _text(data: Mapping[Any, Any], *path: str) -> str:
    value: Any = data
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""


def _start(value: Any) -> Any:
    return value[:100].decode("utf-8", "replace") if isinstance(value, bytes) else value
