"""Whether a request is signed as it claims to be (spec functiongraph_api, section 1.2), whoever keeps the keys."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

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

SKEW = 900.0  #: seconds that a request's date may be off
CACHED = 512  #: bytes of a path or query that is remembered in its canonical form
JSON = b"application/json"

#: Headers that must be signed if they are there, since they change what the request means. Host and X-Security-Token
#: need not: the vendor's SDK for Go, which Terraform uses, signs neither, and the token must be the key's own anyway.
_MEANING = frozenset({b"x-sdk-content-sha256", b"idempotency-key"})
_MEANINGS = (b"x-cff-", b"x-functiond-")

Headers = Mapping[bytes, bytes]


class Signed(Struct, frozen=True, kw_only=True):
    """A request but for its body, as it came; names of headers in lower case."""

    method: bytes
    path: bytes
    query: bytes
    headers: Headers


class Signatures:
    """Both checks tell what is wrong; empty if nothing is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Clients repeat themselves; caches of our own keep two engines apart.
        self._date = lru_cache(64)(read_date)
        self._path, self._query = lru_cache(4096)(canonical_path), lru_cache(1024)(canonical_query)

    def bad_head(self, headers: Headers, proof: Authorization) -> str:
        """What is wrong already without the body."""
        now = self._clock.now()
        date = self._date(headers.get(b"x-sdk-date", b""))
        if date is None:
            return "X-Sdk-Date is needed, such as 20260131T235959Z"
        if abs(now - date) > SKEW:
            return f"X-Sdk-Date is {abs(now - date):.0f} s off this engine's clock: up to {SKEW:.0f} s are allowed"
        return _unsigned(headers, proof.signed)

    def mismatch(self, request: Signed, body_hash: bytes, proof: Authorization, secret: bytes) -> str:
        """For a request whose head is not bad."""
        headers = request.headers
        given = headers.get(b"x-sdk-content-sha256")
        if problem := _bad_hash(given, headers, body_hash, proof.signed):
            return problem
        path, query = request.path, request.query
        path = self._path(path) if len(path) <= CACHED else canonical_path(path)
        query = self._query(query) if len(query) <= CACHED else canonical_query(query)
        # Without a body, the vendor's SDK signs the hash of nothing, whatever that header says.
        hashes = [given, EMPTY] if given and body_hash == EMPTY else [given or body_hash]
        for one in hashes:
            canonical = canonical_request(request.method, path, query, headers, proof.signed, one)
            if is_same(signature(secret, headers[b"x-sdk-date"], canonical), proof.signature):
                return ""
        return (
            "the signature does not match: check the secret key, and that nothing on the way changes method, "
            "Host, path, query or body"
        )


def _unsigned(headers: Headers, signed: tuple[bytes, ...]) -> str:
    for name in headers:
        if (name in _MEANING or name.startswith(_MEANINGS)) and name not in signed:
            return f"the header {name.decode('latin-1')} must be signed"
    for name in signed:
        if name not in headers:
            return f"the header {name.decode('latin-1')} is signed but not there"
    return ""


def _bad_hash(given: bytes | None, headers: Headers, body_hash: bytes, signed: tuple[bytes, ...]) -> str:
    """What is wrong with X-Sdk-Content-Sha256, if it is there."""
    if given is None:
        return ""
    if given != UNSIGNED:
        return "" if is_same(given.lower(), body_hash) else "the body does not match X-Sdk-Content-Sha256"
    if body_hash == EMPTY:
        return ""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (b"", JSON) or b"content-type" not in signed:
        return "UNSIGNED-PAYLOAD is for bodies that are not JSON, whose Content-Type is signed"
    return ""
