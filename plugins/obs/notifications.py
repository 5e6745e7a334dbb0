"""Reads what stores post when something happens: S3's records, as MinIO, Ceph, moto and OBS write them, bare or
within a message of SNS or SMN.

Keys come in four ways: ``in%2Fa+b``, ``in/a+b`` and ``in/a%20b``, which one decoding reads alike, and by Ceph as they
are. A key that no encoding would give (with a blank in it, say) is taken as it is from anybody.
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
from plugins.obs.records import Happening, moment

#: What an encoded key consists of.
_ENCODED = re.compile(r"(?:[\w.~!*'()/+:@&=$,;-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_TOLD = ("eTag", "size", "versionId", "sequencer")
_DEPTH = 3  #: envelopes within each other


class Confirmation(Struct, frozen=True, kw_only=True):
    """A topic asks whether messages are wanted: yes is a GET of this URL."""

    url: str


def read_notification(body: bytes) -> list[Happening] | Confirmation:
    """Empty for a test message. Raises InvalidField."""
    for _ in range(_DEPTH):
        match _decode(body):
            case {"Records": [*records]}:
                return [_happening(record) for record in records]
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


def _happening(record: Any) -> Happening:
    match record:
        case {"eventName": str(name), "s3": place} | {"eventName": str(name), "obs": place}:
            pass
        case _:
            raise InvalidField("Records", _start(record), "each needs eventName, and s3 with bucket and object")
    match place:
        case {"bucket": {"name": str(bucket), **owner}, "object": {"key": str(key), **told}}:
            pass
        case _:
            raise InvalidField("s3", _start(place), "needs bucket.name and object.key")
    return Happening(
        event=name.removeprefix("s3:"),
        bucket=bucket,
        key=_key(key, str(record.get("eventSource", ""))),
        time=_time(record.get("eventTime")),
        object={name: told[name] for name in _TOLD if told.get(name) not in (None, "")},
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


def _time(told: Any) -> str:
    """As it came, but always in milliseconds of UTC."""
    try:
        parsed = datetime.fromisoformat(told)
        return moment((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (TypeError, ValueError, OverflowError):
        raise InvalidField("eventTime", _start(told), "must look like 2026-03-01T06:30:00.123Z") from None


def _text(data: Mapping[Any, Any], *path: str) -> str:
    found: Any = data
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, str) else ""


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidField("body", _start(body), f"must be JSON ({error})") from None


def _start(value: Any) -> Any:
    return value[:100].decode("utf-8", "replace") if isinstance(value, bytes) else value
