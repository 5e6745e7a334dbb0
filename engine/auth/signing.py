"""Headers of signed requests, as ``functiond.signing`` makes them, in bytes as the client sends them."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from msgspec import Struct

UNSIGNED = b"UNSIGNED-PAYLOAD"  #: replaces the hash of a body that is not signed
EMPTY = hashlib.sha256().hexdigest().encode()  #: hash of an empty body

_ACCESS = rb"(?:Access=([^\s,=]{1,128})|Credential=([^\s,=]{1,128})/(\d{8}/[^\s,=/]{0,64}/[^\s,=/]{0,64}/sdk_request))"
_AUTHORIZATION = re.compile(
    rb"SDK-HMAC-SHA256 +%b, *SignedHeaders=([!#$%%&'*+.^`|~0-9a-z;-]{1,4096}), *Signature=([0-9a-fA-F]{64})" % _ACCESS
)
_DIGITS = re.compile(rb"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z")


class Authorization(Struct, frozen=True, kw_only=True):
    """Parsed ``Authorization`` header: access key, names of the signed headers, and signature."""

    access: str
    signed: tuple[bytes, ...]  #: names of headers, in the order of the client
    signature: bytes
    scope: bytes = b""  #: of a Credential, which replaces Access in requests of Open Telekom Cloud's clients


def read_authorization(value: bytes) -> Authorization | None:
    """Parse an ``Authorization`` header. Return None if its scheme is not SDK-HMAC-SHA256, or if it is malformed."""
    match = _AUTHORIZATION.fullmatch(value)
    if match is None:
        return None
    access, other, scope, signed, signature = match.groups()
    return Authorization(
        access=(access or other).decode("latin-1"),
        signed=tuple(signed.split(b";")),
        signature=signature.lower(),
        scope=scope or b"",
    )


def read_date(value: bytes) -> float | None:
    """Parse an X-Sdk-Date such as ``20260131T235959Z``.

    Return seconds since the epoch; None if the text is malformed.
    """
    match = _DIGITS.fullmatch(value)
    try:
        return datetime(*map(int, match.groups()), tzinfo=UTC).timestamp() if match else None  # type: ignore[misc,arg-type]
    except ValueError:
        return None
