"""Verification of request signatures (FunctionGraph API: AK/SK signatures).

Callers look up the secret of the access key and pass it to the verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from msgspec import Struct

from engine.asgi.wire import Headers
from engine.auth.signing import (
    EMPTY,
    UNSIGNED,
    Authorization,
    canonical_path,
    canonical_query,
    canonical_request,
    is_same,
    read_date,
    signature,
)
from engine.model.clock import Clock

SKEW = 900.0  #: seconds by which the date of a request may differ from the clock
CACHED = 512  #: longest path or query in bytes whose canonical form is cached
JSON = b"application/json"

#: Headers that must be signed if present, because they change the meaning of the request. Host and X-Security-Token are
#: exempt: the vendor's Go SDK, which Terraform uses, signs neither, and the token must match the key anyway.
_MEANING = frozenset({b"x-sdk-content-sha256", b"idempotency-key"})
_MEANINGS = (b"x-cff-", b"x-functiond-")

MISMATCH = (
    "the signature does not match: check the secret key, and check that no proxy changes method, Host, path, query or "
    "body"
)


class Signed(Struct, frozen=True, kw_only=True):
    """Signed request without its body. Values are bytes as received; names of headers are in lower case."""

    method: bytes
    path: bytes
    query: bytes
    headers: Headers


class Signatures:
    """Verifier of request signatures.

    Callers use ``bad_head`` first, then ``mismatch``. A request is valid if both return an empty text.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Clients repeat dates, paths and queries. Caches per object keep several engines in a process apart.
        self._date = lru_cache(64)(read_date)
        self._path, self._query = lru_cache(4096)(canonical_path), lru_cache(1024)(canonical_query)

    def bad_head(self, headers: Headers, proof: Authorization) -> str:
        """Return a problem with X-Sdk-Date or with the list of signed headers; empty if there is none.

        Callers can use this method before they read the body.
        """
        now = self._clock.now()
        date = self._date(headers.get(b"x-sdk-date", b""))
        if date is None:
            return "X-Sdk-Date must be a time such as 20260131T235959Z"
        if abs(now - date) > SKEW:
            return f"X-Sdk-Date is {abs(now - date):.0f} s off this engine's clock: up to {SKEW:.0f} s are allowed"
        return _unsigned(headers, proof.signed)

    def mismatch(self, request: Signed, body_hash: bytes, proof: Authorization, secret: bytes) -> str:
        """Return a problem with the body hash or the signature; empty if there is none.

        The request must have passed ``bad_head``. ``body_hash`` is the SHA-256 of the received body in hexadecimal.
        """
        given = request.headers.get(b"x-sdk-content-sha256")
        if problem := _bad_hash(given, request.headers, body_hash, proof.signed):
            return problem
        # Without a body, the vendor's SDK signs the hash of an empty body and ignores X-Sdk-Content-Sha256.
        hashes = [given, EMPTY] if given and body_hash == EMPTY else [given or body_hash]
        return "" if self._signed_hash(request, hashes, proof, secret) is not None else MISMATCH

    def declared(self, request: Signed, proof: Authorization, secret: bytes) -> bytes | None:
        """Return the hash of the body that the signature covers; None if the signature is wrong for any body.

        The request must have passed ``bad_head`` and declare a hash in X-Sdk-Content-Sha256. Callers can use this
        method before they read the body, and ``bad_body`` afterwards in place of ``mismatch``.
        """
        return self._signed_hash(request, [request.headers[b"x-sdk-content-sha256"], EMPTY], proof, secret)

    def _signed_hash(
        self, request: Signed, hashes: Sequence[bytes], proof: Authorization, secret: bytes
    ) -> bytes | None:
        """Return the first of the hashes that the signature covers; None if it covers none of them."""
        headers, path, query = request.headers, request.path, request.query
        path = self._path(path) if len(path) <= CACHED else canonical_path(path)
        query = self._query(query) if len(query) <= CACHED else canonical_query(query)
        for one in hashes:
            canonical = canonical_request(request.method, path, query, headers, proof.signed, one)
            if is_same(signature(secret, headers[b"x-sdk-date"], canonical), proof.signature):
                return one
        return None


def bad_body(signed: bytes, headers: Headers, body_hash: bytes, proof: Authorization) -> str:
    """Return a problem with a body whose request was signed with the hash ``signed``; empty if there is none."""
    if signed == EMPTY and body_hash != EMPTY:
        return "the body does not match the signature, which is that of an empty one"
    return _bad_hash(headers.get(b"x-sdk-content-sha256"), headers, body_hash, proof.signed)


def _unsigned(headers: Headers, signed: tuple[bytes, ...]) -> str:
    for name in headers:
        if (name in _MEANING or name.startswith(_MEANINGS)) and name not in signed:
            return f"the header {name.decode('latin-1')} must be signed"
    for name in signed:
        if name not in headers:
            return f"the header {name.decode('latin-1')} is listed in SignedHeaders but missing"
    return ""


def _bad_hash(given: bytes | None, headers: Headers, body_hash: bytes, signed: tuple[bytes, ...]) -> str:
    """Return a problem with ``given``, the value of X-Sdk-Content-Sha256; empty if it is valid or absent."""
    if given is None:
        return ""
    if given != UNSIGNED:
        return "" if is_same(given.lower(), body_hash) else "the body does not match X-Sdk-Content-Sha256"
    if body_hash == EMPTY:
        return ""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (b"", JSON) or b"content-type" not in signed:
        return "UNSIGNED-PAYLOAD is only allowed for bodies other than JSON with a signed Content-Type"
    return ""
