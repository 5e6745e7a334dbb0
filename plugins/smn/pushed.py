"""Parser of messages that remote topics send by HTTP, in the format of SMN or of SNS.

The signature does not cover the HTTP headers and the message's attributes. Headers are therefore ignored, and the
attributes are not passed to functions.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from engine import InvalidField
from plugins.smn.message import Message, moment

Kind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
#: digest of a message's signature; empty: that of the certificate
Digest = Literal["", "sha1", "sha256"]


class Pushed(Struct, frozen=True, kw_only=True):
    """Message of a remote topic whose signature is not checked yet."""

    kind: Kind
    message: Message
    subscribe_url: str  #: only in confirmations
    signed: bytes  #: the text that was signed
    signature: bytes
    certificate_url: str
    digest: Digest


class _Push(Struct, frozen=True, kw_only=True):
    type: Kind
    message_id: str
    message: str
    topic_urn: str
    timestamp: str
    signature: str
    signature_version: str
    signing_cert_url: str
    subject: str | None = None
    subscribe_url: str | None = None
    token: str | None = None  #: only in messages of SNS


class _Dialect(Struct, frozen=True, kw_only=True):
    """Format of the messages of one service, SMN or SNS."""

    names: Mapping[str, str]  #: fields of ``_Push``, keyed by the sender's names
    digests: Mapping[str, Digest]  #: keyed by the version of the signature


_SMN = _Dialect(names={name: name for name in _Push.__struct_fields__ if name != "token"}, digests={"v1": "", "V1": ""})
_SNS = _Dialect(
    names={
        "Type": "type",
        "MessageId": "message_id",
        "Message": "message",
        "TopicArn": "topic_urn",
        "Timestamp": "timestamp",
        "Signature": "signature",
        "SignatureVersion": "signature_version",
        "SigningCertURL": "signing_cert_url",
        "Subject": "subject",
        "SubscribeURL": "subscribe_url",
        "Token": "token",
    },
    digests={"1": "sha1", "2": "sha256"},
)
#: Signed fields of a notification, and of both confirmations.
_NOTE = frozenset({"message", "message_id", "subject", "timestamp", "topic_urn", "type"})
_CONFIRMATION = frozenset({"message", "message_id", "subscribe_url", "timestamp", "token", "topic_urn", "type"})


def read_push(body: bytes) -> Pushed:
    """Return the message in a request's body. Raises InvalidField if the body is not a message of SMN or SNS."""
    try:
        sent = msgspec.json.decode(body, type=dict[str, Any])
        dialect = _SNS if "TopicArn" in sent else _SMN
        found = {ours: sent[name] for name, ours in dialect.names.items() if name in sent}
        push = msgspec.convert(found, _Push)
    except (msgspec.DecodeError, RecursionError) as error:
        start = body[:80].decode(errors="replace")
        raise InvalidField("body", start, f"must be a message of a topic ({error})") from None
    return _pushed(push, dialect)


def _pushed(push: _Push, dialect: _Dialect) -> Pushed:
    digest = dialect.digests.get(push.signature_version)
    if digest is None:
        raise InvalidField("signature_version", push.signature_version, f"must be one of {', '.join(dialect.digests)}")
    try:
        moment(push.timestamp)
    except (ValueError, OverflowError):
        raise InvalidField("timestamp", push.timestamp, "must look like 2026-03-01T06:30:00Z") from None
    try:
        signature = base64.b64decode(push.signature, validate=True)
    except binascii.Error:
        raise InvalidField("signature", push.signature[:100], "must be base64") from None
    return Pushed(
        kind=push.type,
        message=Message(
            topic_urn=push.topic_urn,
            message_id=push.message_id,
            message=push.message,
            timestamp=push.timestamp,
            subject=push.subject or "",
        ),
        subscribe_url=push.subscribe_url or "",
        signed=_signed(push, dialect),
        signature=signature,
        certificate_url=push.signing_cert_url,
        digest=digest,
    )


def _signed(push: _Push, dialect: _Dialect) -> bytes:
    """Return the text that the sender has signed. Raises InvalidField if a value, except the message, has a line break.

    Each signed field that is not empty adds a line with its name and a line with its value. Fields are sorted by the
    sender's names.
    """
    wanted = _NOTE if push.type == "Notification" else _CONFIRMATION
    pairs = [
        (name, value)
        for name, ours in sorted(dialect.names.items())
        if ours in wanted and (value := getattr(push, ours))
    ]
    for name, value in pairs:
        # With a line break in another value, two different messages could have the same signed text.
        if name.lower() != "message" and "\n" in value:
            raise InvalidField(name, value, "must be one line")
    return "".join(f"{name}\n{value}\n" for name, value in pairs).encode()
