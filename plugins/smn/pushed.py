"""Reads what topics elsewhere push: messages of SMN (spec triggers_runtime, 3.1), and of SNS, its near relative.

Headers are not signed, so they tell nothing; nor are attributes, so they are left out.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from engine import InvalidField
from plugins.smn.message import Message, moment

T = TypeVar("T")

Kind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]


class Pushed(Struct, frozen=True, kw_only=True):
    """A message whose signature is still to be checked."""

    kind: Kind
    message: Message
    subscribe_url: str  #: of confirmations
    signed: bytes  #: the text that was signed
    signature: bytes
    certificate_url: str
    digest: Literal["", "sha1", "sha256"]  #: by which it was signed; empty: by that of the certificate


class _Smn(Struct, frozen=True, kw_only=True):
    type: Kind
    message_id: str
    message: str
    topic_urn: str
    timestamp: str
    signature: str
    signing_cert_url: str
    signature_version: Literal["v1", "V1"] = "v1"
    subject: str | None = None
    subscribe_url: str | None = None


class _Sns(Struct, frozen=True, kw_only=True, rename="pascal"):
    type: Kind
    message_id: str
    message: str
    topic_arn: str
    timestamp: str
    signature: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    signature_version: Literal["1", "2"]
    subject: str | None = None
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)
    token: str | None = None


class _Dialect(Struct, frozen=True):
    TopicArn: str = ""


def read_push(body: bytes) -> Pushed:
    """Raises InvalidField."""
    return _read_sns(_decode(body, _Sns)) if _decode(body, _Dialect).TopicArn else _read_smn(_decode(body, _Smn))


def _read_smn(push: _Smn) -> Pushed:
    message = Message(
        topic_urn=push.topic_urn,
        message_id=push.message_id,
        message=push.message,
        timestamp=push.timestamp,
        subject=push.subject or "",
    )
    note = push.type == "Notification"
    pairs = [
        ("message", push.message),
        ("message_id", push.message_id),
        *([] if note else [("subscribe_url", push.subscribe_url or "")]),
        *([("subject", push.subject)] if note and push.subject else []),
        ("timestamp", push.timestamp),
        ("topic_urn", push.topic_urn),
        ("type", push.type),
    ]
    return _pushed(push, message, pairs, "")


def _read_sns(push: _Sns) -> Pushed:
    message = Message(
        topic_urn=push.topic_arn,
        message_id=push.message_id,
        message=push.message,
        timestamp=push.timestamp,
        subject=push.subject or "",
    )
    note = push.type == "Notification"
    pairs = [
        ("Message", push.message),
        ("MessageId", push.message_id),
        *([("Subject", push.subject)] if note and push.subject is not None else []),
        *([] if note else [("SubscribeURL", push.subscribe_url or "")]),
        ("Timestamp", push.timestamp),
        *([] if note else [("Token", push.token or "")]),
        ("TopicArn", push.topic_arn),
        ("Type", push.type),
    ]
    return _pushed(push, message, pairs, "sha256" if push.signature_version == "2" else "sha1")


def _pushed(
    push: _Smn | _Sns, message: Message, pairs: Iterable[tuple[str, str]], digest: Literal["", "sha1", "sha256"]
) -> Pushed:
    # Lines stand for names and values by turns: a break within a value would let it pass for another text.
    for name, value in pairs:
        if name.lower() != "message" and not value.isprintable():
            raise InvalidField(name, value, "must be one line")
    try:
        moment(message.timestamp)
    except (ValueError, OverflowError):
        raise InvalidField("timestamp", message.timestamp, "must look like 2026-03-01T06:30:00Z") from None
    try:
        signature = base64.b64decode(push.signature, validate=True)
    except binascii.Error:
        raise InvalidField("signature", push.signature[:100], "must be base64") from None
    return Pushed(
        kind=push.type,
        message=message,
        subscribe_url=push.subscribe_url or "",
        signed="".join(f"{name}\n{value}\n" for name, value in pairs).encode(),
        signature=signature,
        certificate_url=push.signing_cert_url,
        digest=digest,
    )


def _decode(body: bytes, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidField(
            "body", body[:80].decode(errors="replace"), f"must be a message of a topic ({error})"
        ) from None
