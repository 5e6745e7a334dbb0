"""Signatures of HTTP requests by the Standard Webhooks specification 1.0, or in the format of GitHub."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping

from engine import Unauthorized

PREFIX = "whsec_"
#: Seconds by which a message's time may differ from the clock, in both directions.
TOLERANCE = 300.0
ID, TIMESTAMP, SIGNATURE = b"webhook-id", b"webhook-timestamp", b"webhook-signature"
GITHUB_ID, GITHUB_SIGNATURE = b"x-github-delivery", b"x-hub-signature-256"


def key_of(secret: str) -> bytes:
    """Return the signing key for a secret: the decoded base64 after ``whsec_``, or the bytes of any other text.

    Raises ValueError if ``whsec_`` is followed by invalid base64.
    """
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a secret that begins with whsec_ must continue in base64") from None


def sign(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the header ``webhook-signature`` (Standard Webhooks)."""
    signed = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def check_standard(key: bytes, headers: Mapping[bytes, bytes], body: bytes, now: float) -> str:
    """Verify a request by Standard Webhooks, and return the message's id.

    Raises Unauthorized if a header is missing, if the timestamp is too far from ``now``, or if no signature matches.
    """
    message_id, timestamp = headers.get(ID, b"").decode("latin-1"), headers.get(TIMESTAMP, b"")
    if not message_id or not timestamp.isdigit() or len(timestamp) > 12:
        raise Unauthorized("webhook-id, webhook-timestamp (seconds) and webhook-signature are needed")
    if abs(now - int(timestamp)) > TOLERANCE:
        raise Unauthorized(f"webhook-timestamp differs by more than {TOLERANCE:.0f} s from this engine's clock")
    expected = sign(key, message_id, int(timestamp), body).encode()
    # Senders that change their secret send signatures with both the old and the new one for a while.
    if not any(hmac.compare_digest(expected, given) for given in headers.get(SIGNATURE, b"").split()):
        raise Unauthorized("webhook-signature does not match: check the secret")
    return message_id


def check_github(key: bytes, headers: Mapping[bytes, bytes], body: bytes, now: float) -> str:
    """Verify a request in the format of GitHub, and return the delivery's id, empty if the request has none.

    Raises Unauthorized if the signature does not match.
    """
    expected = b"sha256=" + hmac.digest(key, body, "sha256").hex().encode()
    if not hmac.compare_digest(expected, headers.get(GITHUB_SIGNATURE, b"")):
        raise Unauthorized("X-Hub-Signature-256 does not match: check the secret")
    return headers.get(GITHUB_ID, b"").decode("latin-1")
