"""Authentication of signed requests (FunctionGraph API: AK/SK signatures).

Callers look up the secret of the access key and pass it to the verifier. Refusals are delayed after many failures;
valid signatures never are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hmac import compare_digest

import anyio.to_thread
from functiond.signing import canonical_path, canonical_query, canonical_request, hash_of, signature
from msgspec import Struct

from engine.asgi.wire import Headers, ReadBody, Scope
from engine.auth.denials import DenialLog
from engine.auth.signing import EMPTY, UNSIGNED, Authorization, read_authorization, read_date
from engine.auth.throttle import AuthThrottle, Subject
from engine.errors import Unauthorized
from engine.model.clock import Clock

SKEW = 900.0  #: seconds by which the date of a request may differ from the clock
LARGE = 1 << 20  #: size of a body in bytes from which it is hashed in a thread, off the event loop
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


class Claim(Struct, frozen=True, kw_only=True):
    """Signed request without its body, and the signer that its headers name. The signature is not verified yet.

    Parts of the request are bytes as received; names of headers are in lower case.
    """

    method: bytes
    path: bytes
    query: bytes
    headers: Headers
    proof: Authorization
    secret: bytes
    subject: Subject


class SignatureVerifier:
    """Verifier of signed requests.

    Callers use ``claim`` before the body is read, then ``verify``. A request is authentic if neither raises an error.
    With ``declared_hash`` in between, a wrong signature is found before the body is read if the headers declare a hash.
    """

    def __init__(self, clock: Clock, failures: AuthThrottle) -> None:
        self._clock, self._failures, self._log = clock, failures, DenialLog(clock)
        # Clients repeat dates, paths and queries. Caches per object keep several engines in a process apart.
        self._date = lru_cache(64)(read_date)
        self._path, self._query = lru_cache(4096)(canonical_path), lru_cache(1024)(canonical_query)

    def claim(self, scope: Scope, headers: Headers, secret_of: Callable[[str], bytes | None]) -> Claim:
        """Return the signed request with the signer that the headers name. They must include ``authorization``.

        ``secret_of`` returns the secret of an access key, or None for an unknown key. Raises Unauthorized if the key is
        unknown or a header is invalid; TooManyFailures instead if too many refusals are delayed.
        """
        proof = read_authorization(headers[b"authorization"])
        secret = secret_of(proof.access) if proof else None
        subject = self._failures.subject(address_of(scope), proof.access if proof and secret is not None else "")
        if proof is None:
            raise self.failed(
                subject, "Authorization must be SDK-HMAC-SHA256 Access=..., SignedHeaders=..., Signature=..."
            )
        if secret is None:
            raise self.failed(subject, "the access key is not one of this engine's")
        if problem := self._bad_date(headers, proof.scope) or _unsigned(headers, proof.signed):
            raise self.failed(subject, problem)
        return Claim(
            method=scope["method"].encode(),
            path=scope["raw_path"],
            query=scope["query_string"],
            headers=headers,
            proof=proof,
            secret=secret,
            subject=subject,
        )

    def declared_hash(self, claim: Claim) -> bytes | None:
        """Return the hash of the body that the signature covers; None if the headers do not declare one.

        Callers that use this method before they read the body pass the hash on to ``verify``. Raises Unauthorized if
        the signature is wrong, whatever the body will be.
        """
        declared = claim.headers.get(b"x-sdk-content-sha256")
        if declared is None:
            return None
        signed = self._signed_hash(claim, [declared, EMPTY])
        if signed is None:
            raise self.failed(claim.subject, MISMATCH)
        return signed

    async def verify_before(self, read: ReadBody, claim: Claim) -> None:
        """Do as ``declared_hash``, then read the body, then do as ``verify``."""
        declared = self.declared_hash(claim)
        await self.verify(claim, await read(), declared)

    async def verify(self, claim: Claim, body: bytes, declared: bytes | None = None) -> None:
        """Raise Unauthorized unless the body hash and the signature match the request.

        ``declared`` is the result of ``declared_hash``. The signature is not verified again if there is one.
        Raises TooManyFailures instead if too many refusals are delayed.
        """
        body_hash = hash_of(body) if len(body) < LARGE else await anyio.to_thread.run_sync(hash_of, body)
        self.verify_hash(claim, body_hash, declared)

    def verify_hash(self, claim: Claim, body_hash: bytes, declared: bytes | None = None) -> None:
        """Do as ``verify``, with the hash of the body in hexadecimal digits."""
        given = claim.headers.get(b"x-sdk-content-sha256")
        if declared == EMPTY != body_hash:
            problem = "the body does not match the signature, which is that of an empty one"
        else:
            problem = _bad_hash(given, claim.headers, body_hash, claim.proof.signed)
        if declared is None and not problem:
            # Without a body, the vendor's SDK signs the hash of an empty body and ignores X-Sdk-Content-Sha256.
            hashes = [given, EMPTY] if given and body_hash == EMPTY else [given or body_hash]
            problem = MISMATCH if self._signed_hash(claim, hashes) is None else ""
        if problem:
            raise self.failed(claim.subject, problem)

    def _bad_date(self, headers: Headers, scope: bytes) -> str:
        """Return a problem with X-Sdk-Date or the date of a scope; empty if there is none."""
        now = self._clock.now()
        date = self._date(headers.get(b"x-sdk-date", b""))
        if date is None:
            return "X-Sdk-Date must be a time such as 20260131T235959Z"
        if abs(now - date) > SKEW:
            return f"X-Sdk-Date is {abs(now - date):.0f} s off this engine's clock: up to {SKEW:.0f} s are allowed"
        # A key that was derived for a day must sign requests of this day only.
        return "" if headers[b"x-sdk-date"].startswith(scope[:8]) else "the Credential needs the date of X-Sdk-Date"

    def _signed_hash(self, claim: Claim, hashes: Sequence[bytes]) -> bytes | None:
        """Return the first of the hashes that the signature covers; None if it covers none of them."""
        path = self._path(claim.path) if len(claim.path) <= CACHED else canonical_path(claim.path)
        query = self._query(claim.query) if len(claim.query) <= CACHED else canonical_query(claim.query)
        for body_hash in hashes:
            canonical = canonical_request(claim.method, path, query, claim.headers, claim.proof.signed, body_hash)
            expected = signature(claim.secret, claim.headers[b"x-sdk-date"], canonical, claim.proof.scope)
            if compare_digest(expected, claim.proof.signature):
                return body_hash
        return None

    @contextmanager
    def attempt(self, address: str) -> Iterator[None]:
        """Count an Unauthorized error that the block raises as a failure of the client at ``address``.

        The block checks credentials other than signatures, such as tokens. The error gets the delay of its reply.
        Raises TooManyFailures instead if too many refusals are delayed.
        """
        try:
            yield
        except Unauthorized as error:
            error.delay = self._count(self._failures.subject(address), str(error))
            raise

    def failed(self, subject: Subject, problem: str) -> Unauthorized:
        """Count and log a failure of the subject. Return the error for the caller to raise.

        Raises TooManyFailures if too many refusals are delayed.
        """
        error = Unauthorized(problem)
        error.delay = self._count(subject, problem)
        return error

    def _count(self, subject: Subject, problem: str) -> float:
        self._log.anonymous("not authenticated", client=subject[0], access=subject[1], problem=problem)
        return self._failures.note(subject)


def address_of(scope: Scope) -> str:
    """Return the address of the client from an ASGI scope; empty if the server did not set it.

    The listener has put it there: the other end of the connection, or the client of a trusted proxy.
    """
    return scope["client"][0] if scope.get("client") else ""


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
        return "" if compare_digest(given.lower(), body_hash) else "the body does not match X-Sdk-Content-Sha256"
    if body_hash == EMPTY:
        return ""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (b"", JSON) or b"content-type" not in signed:
        return "UNSIGNED-PAYLOAD is only allowed for bodies other than JSON with a signed Content-Type"
    return ""
