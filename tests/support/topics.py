"""Topics of SMN and SNS outside the engine. Messages are signed; the certificate is served on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from msgspec import Struct, field

from engine import NotFound, PushRequest, Reply
from engine.asgi.listener import listen
from engine.triggers.routes import Mounts, PluginRoutes

TOPIC = "urn:smn:far-1:theirs:orders"
ARN = "arn:aws:sns:us-east-1:123456789012:orders"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


class Signer:
    """Signer of pushed messages, as documented by SMN and SNS. Signed texts are built without the engine's code."""

    def __init__(self, digest: hashes.SHA256 | hashes.SHA512 | None = None) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.digest = digest or hashes.SHA256()
        self.host = ""  #: host and port that serve the certificate

    @property
    def url(self) -> str:
        return f"http://{self.host}/cert.pem"

    @property
    def private_key(self) -> bytes:
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(encoding, form, serialization.NoEncryption())

    def certificate(self) -> bytes:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(NAME, NAME, self.key.public_key(), 1, now, now + timedelta(days=1))
        named = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        authority = named.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return authority.sign(self.key, self.digest).public_bytes(serialization.Encoding.PEM)

    def sign(self, text: str, digest: hashes.HashAlgorithm | None = None) -> str:
        signature = self.key.sign(text.encode(), padding.PKCS1v15(), digest or self.digest)
        return base64.b64encode(signature).decode()

    def notification(self, number: int = 1, subject: str = "") -> dict[str, Any]:
        """Return a signed SMN message."""
        message, moment, told = f"message {number}", now(), ("subject", subject) if subject else ()
        signed = ("message", message, "message_id", f"id{number}", *told, "timestamp", moment, "topic_urn", TOPIC)
        return {
            **self._smn("Notification", *signed),
            "message_id": f"id{number}",
            "message": message,
            "unsubscribe_url": "https://console.example/unsubscribe",
            "timestamp": moment,
            **({"subject": subject} if subject else {}),
        }

    def confirmation(self, url: str, kind: str = "SubscriptionConfirmation") -> dict[str, Any]:
        """Return a signed confirmation of an SMN subscription."""
        moment = now()
        signed = ("message", "Come", "message_id", "c", "subscribe_url", url, "timestamp", moment, "topic_urn", TOPIC)
        return {
            **self._smn(kind, *signed),
            "message_id": "c",
            "message": "Come",
            "subscribe_url": url,
            "timestamp": moment,
        }

    def sns(self, version: str) -> dict[str, Any]:
        """Return a signed SNS notification."""
        moment = now()
        signed = ("Message", "hello", "MessageId", "m-1", "Subject", "hi", "Timestamp", moment, "TopicArn", ARN)
        return {
            **self._sns("Notification", version, *signed),
            "MessageId": "m-1",
            "Subject": "hi",
            "Message": "hello",
            "Timestamp": moment,
            "UnsubscribeURL": "https://sns.example/",
            "MessageAttributes": {"unsigned": {"Type": "String", "Value": "x"}},
        }

    def sns_confirmation(self, url: str) -> dict[str, Any]:
        moment = now()
        told = ("Message", "Come", "MessageId", "m-2", "SubscribeURL", url)
        return {
            **self._sns("SubscriptionConfirmation", "1", *told, "Timestamp", moment, "Token", "t", "TopicArn", ARN),
            "MessageId": "m-2",
            "Token": "t",
            "Message": "Come",
            "SubscribeURL": url,
            "Timestamp": moment,
        }

    def _smn(self, kind: str, *signed: str) -> dict[str, Any]:
        return {
            "type": kind,
            "topic_urn": TOPIC,
            "signature": self.sign(lines(*signed, "type", kind)),
            "signature_version": "v1",
            "signing_cert_url": self.url,
        }

    def _sns(self, kind: str, version: str, *signed: str) -> dict[str, Any]:
        digest = hashes.SHA256() if version == "2" else hashes.SHA1()
        return {
            "Type": kind,
            "TopicArn": ARN,
            "Signature": self.sign(lines(*signed, "Type", kind), digest),
            "SignatureVersion": version,
            "SigningCertURL": self.url,
        }


def lines(*parts: str) -> str:
    return "".join(f"{part}\n" for part in parts)


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Served(Struct):
    """Requests that the signer's host has received."""

    asked: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving(signer: Signer) -> AsyncIterator[Served]:
    """Serve the signer's host: its certificate, a confirmation URL, a redirect and a long reply."""
    served = Served()

    async def answer(request: PushRequest) -> Reply:
        served.asked.append(f"{request.path}?{request.query}" if request.query else request.path)
        match request.path:
            case "/cert.pem":
                return Reply(body=signer.certificate())
            case "/confirm":
                return Reply(body=b"ok")
            case "/elsewhere":
                return Reply(status=302, headers=((b"location", b"/cert.pem"),))
            case "/long":
                return Reply(body=bytes(1 << 20))
        raise NotFound(request.path)

    async with listen(PluginRoutes(Mounts(), "test").app(answer), "127.0.0.1", 0) as port:
        signer.host = f"127.0.0.1:{port}"
        yield served


def encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()
