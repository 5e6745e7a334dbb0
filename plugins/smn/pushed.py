"""Messages that remote topics send by HTTP, in the format of SMN or of SNS: parser, and verification of signatures.

The signature does not cover the HTTP headers and the message's attributes. Headers are therefore ignored, and the
attributes are not passed to functions. Signatures are RSA with PKCS #1 v1.5, as SMN and SNS sign. A certificate is
trusted because its host is in the settings. Its issuer and validity period are not checked, since the vendor does not
document them.
"""

from __future__ import annotations

import base64
import binascii
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import anyio
import msgspec
from msgspec import Struct

from engine import InvalidField, Unauthorized
from plugins.smn.events import Message, moment

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm


Kind = Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
#: digest of a message's signature; empty: that of the certificate
Digest = Literal["", "sha1", "sha256"]
#: Signed fields of a notification, and of both confirmations.
_NOTE = frozenset({"message", "message_id", "subject", "timestamp", "topic_urn", "type"})
_CONFIRMATION = frozenset({"message", "message_id", "subscribe_url", "timestamp", "token", "topic_urn", "type"})
KEPT = 64  #: cached certificates
LIFE = 3600.0  #: seconds for which a certificate is cached
AT_ONCE = 4  #: concurrent downloads of certificates
DIGESTS = ("sha1", "sha256", "sha384", "sha512")


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


def read_push(body: bytes) -> Pushed:
    """Return the message in a request's body. Raises InvalidField if the body is not a message of SMN or SNS."""
    try:
        sent = msgspec.json.decode(body, type=dict[str, Any])
        dialect = _SNS if "TopicArn" in sent else _SMN
        fields = {ours: sent[name] for name, ours in dialect.names.items() if name in sent}
        push = msgspec.convert(fields, _Push)
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


class Certificate(Struct, frozen=True, eq=False):
    key: RSAPublicKey
    digest: str  #: digest of the certificate's own signature
    until: float  #: end of caching


class Verifier:
    """Verifier of signatures, with a cache of certificates.

    ``fetch`` downloads a certificate. It raises Forbidden if the URL is not allowed or its host refuses, and
    Unavailable for a temporary failure.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes]]) -> None:
        self._fetch = fetch
        self._kept: OrderedDict[str, Certificate] = OrderedDict()
        self._fetching = anyio.CapacityLimiter(AT_ONCE)

    async def check(self, pushed: Pushed, now: float) -> None:
        """Verify a message. Raises Unauthorized if certificate or signature is invalid, and the errors of ``fetch``."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

        certificate = await self._certificate(pushed.certificate_url, now)
        digest = _digest(pushed.digest or certificate.digest)
        try:
            certificate.key.verify(pushed.signature, pushed.signed, PKCS1v15(), digest)
        except InvalidSignature:
            raise Unauthorized("the signature does not match the message") from None

    async def _certificate(self, url: str, now: float) -> Certificate:
        if certificate := self._find(url, now):
            return certificate
        async with self._fetching:
            if certificate := self._find(url, now):  # fetched by another task meanwhile
                return certificate
            certificate = self._kept[url] = _read(await self._fetch(url), now + LIFE)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return certificate

    def _find(self, url: str, now: float) -> Certificate | None:
        certificate = self._kept.get(url)
        if certificate is None or certificate.until < now:
            return None
        self._kept.move_to_end(url)
        return certificate


def _read(content: bytes, until: float) -> Certificate:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(content)
        key, digest = certificate.public_key(), certificate.signature_hash_algorithm
    except Exception as error:  # the library raises many types of errors for invalid certificates
        raise Unauthorized(f"no valid certificate at the certificate's URL: {type(error).__name__}") from None
    if not isinstance(key, RSAPublicKey) or digest is None or digest.name not in DIGESTS:
        raise Unauthorized(f"the certificate must have an RSA key, and a signature with one of {', '.join(DIGESTS)}")
    return Certificate(key, digest.name, until)


def _digest(name: str) -> HashAlgorithm:
    from cryptography.hazmat.primitives import hashes

    algorithm: HashAlgorithm = getattr(hashes, name.upper())()
    return algorithm
