"""Signatures of requests in the scheme SDK-HMAC-SHA256 (FunctionGraph API: AK/SK signatures).

The signature covers method, path, query, the headers listed in SignedHeaders, the hash of the body, and X-Sdk-Date even
if it is not listed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote_from_bytes, unquote_to_bytes

ALGORITHM = b"SDK-HMAC-SHA256"


def sign(
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access: str,
    secret: str,
    moment: float,
) -> dict[str, str]:
    """Return the headers that sign a request, X-Sdk-Date and Authorization, for the client to add.

    ``target`` is path and query of the request. ``headers`` are all headers to sign, including Host; those with an
    underscore in the name are left unsigned. ``moment`` is the time in seconds since the epoch.
    """
    date = datetime.fromtimestamp(moment, UTC).strftime("%Y%m%dT%H%M%SZ")
    given = {name.lower().encode(): value.encode() for name, value in headers.items() if "_" not in name}
    given[b"x-sdk-date"] = date.encode()
    path, _, query = target.encode().partition(b"?")
    signed = sorted(given)
    payload_hash = given.get(b"x-sdk-content-sha256") or hash_of(body)
    canonical = canonical_request(
        method.encode(), canonical_path(path), canonical_query(query), given, signed, payload_hash
    )
    proof = signature(secret.encode(), date.encode(), canonical).decode()
    names = b";".join(signed).decode()
    authorization = f"{ALGORITHM.decode()} Access={access}, SignedHeaders={names}, Signature={proof}"
    return {"X-Sdk-Date": date, "Authorization": authorization}


def hash_of(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


def canonical_path(path: bytes) -> bytes:
    """Return the path in the form that is signed: each segment percent-encoded anew, with a trailing slash.

    ``%2F`` and ``/`` differ, so that no signature covers two paths.
    """
    text = "/".join(_encode(unquote_to_bytes(segment)) for segment in path.split(b"/")).encode()
    return text if text.endswith(b"/") else text + b"/"


def canonical_query(query: bytes) -> bytes:
    """Return the query in the form that is signed: its pairs sorted by key and value, and percent-encoded anew.

    A plus sign in ``query`` means a space, as in HTML forms.
    """
    if not query:
        return b""
    pairs = [pair.replace(b"+", b" ").partition(b"=") for pair in query.split(b"&") if pair]
    decoded = sorted((unquote_to_bytes(key), unquote_to_bytes(value)) for key, _, value in pairs)
    return "&".join(f"{_encode(key)}={_encode(value)}" for key, value in decoded).encode()


def _encode(part: bytes) -> str:
    return quote_from_bytes(part, safe="")


def canonical_request(
    method: bytes,
    path: bytes,
    query: bytes,
    headers: Mapping[bytes, bytes],
    signed: Sequence[bytes],
    payload_hash: bytes,
) -> bytes:
    """Return the text of a request over which its signature is computed.

    ``path`` and ``query`` must be results of ``canonical_path`` and ``canonical_query``. Raises KeyError if
    ``headers`` lacks a name of ``signed``.
    """
    lines = [b"%b:%b" % (name, headers[name].strip()) for name in signed]
    return b"\n".join((method, path, query, *lines, b"", b";".join(signed), payload_hash))


def signature(secret: bytes, date: bytes, canonical: bytes, scope: bytes = b"") -> bytes:
    """Return the signature of ``canonical``, a result of ``canonical_request``, in lower-case hexadecimal.

    ``scope`` is ``DATE/REGION/SERVICE/sdk_request`` if the header has a Credential, as of Open Telekom Cloud's clients.
    """
    if scope:
        secret, date = b"SDK" + secret, b"%b\n%b" % (date, scope)
        for part in scope.split(b"/"):
            secret = hmac.digest(secret, part, "sha256")
    to_sign = b"%b\n%b\n%b" % (ALGORITHM, date, hash_of(canonical))
    return hmac.digest(secret, to_sign, "sha256").hex().encode()
