"""Authentication of signed requests. Refusals are delayed after many failures; valid signatures never are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
from msgspec import Struct

from engine.asgi.wire import Headers, ReadBody, Scope
from engine.auth.denials import DenialLog
from engine.auth.signatures import MISMATCH, Signatures, Signed, bad_body
from engine.auth.signing import Authorization, hash_of, read_authorization
from engine.auth.throttle import AuthThrottle, Subject
from engine.errors import Unauthorized
from engine.model.clock import Clock

LARGE = 1 << 20  #: size of a body in bytes from which it is hashed in a thread, off the event loop


class Claim(Struct, frozen=True, kw_only=True):
    """Signer that the headers of a request name, with its secret. The signature is not verified yet."""

    proof: Authorization
    secret: bytes
    subject: Subject


class SignatureVerifier:
    """Verifier of signed requests.

    Callers use ``claim`` before the body is read, then ``verify``. A request is authentic if neither raises an error.
    With ``declared_hash`` in between, a wrong signature is found before the body is read if the headers declare a hash.
    """

    def __init__(self, clock: Clock, failures: AuthThrottle) -> None:
        self._failures, self._signatures, self._log = failures, Signatures(clock), DenialLog(clock)

    def claim(self, headers: Headers, address: str, secret_of: Callable[[str], bytes | None]) -> Claim:
        """Return the signer that the headers name. The headers must include ``authorization``.

        ``secret_of`` returns the secret of an access key, or None for an unknown key. Raises Unauthorized if the key is
        unknown or a header is invalid; TooManyFailures instead if too many refusals are delayed.
        """
        proof = read_authorization(headers[b"authorization"])
        secret = secret_of(proof.access) if proof else None
        subject = self._failures.subject(address, proof.access if proof and secret is not None else "")
        if proof is None:
            raise self.failed(
                subject, "Authorization must be SDK-HMAC-SHA256 Access=..., SignedHeaders=..., Signature=..."
            )
        if secret is None:
            raise self.failed(subject, "the access key is not one of this engine's")
        if problem := self._signatures.bad_head(headers, proof):
            raise self.failed(subject, problem)
        return Claim(proof=proof, secret=secret, subject=subject)

    def declared_hash(self, claim: Claim, scope: Scope, headers: Headers) -> bytes | None:
        """Return the hash of the body that the signature covers; None if the headers do not declare one.

        Callers that use this method before they read the body pass the hash on to ``verify``. Raises Unauthorized if
        the signature is wrong, whatever the body will be.
        """
        if b"x-sdk-content-sha256" not in headers:
            return None
        signed = self._signatures.declared(_signed(scope, headers), claim.proof, claim.secret)
        if signed is None:
            raise self.failed(claim.subject, MISMATCH)
        return signed

    async def verify_before(self, read: ReadBody, claim: Claim, scope: Scope, headers: Headers) -> None:
        """Do as ``declared_hash``, then read the body, then do as ``verify``."""
        declared = self.declared_hash(claim, scope, headers)
        await self.verify(claim, scope, headers, await read(), declared)

    async def verify(
        self, claim: Claim, scope: Scope, headers: Headers, body: bytes, declared: bytes | None = None
    ) -> None:
        """Raise Unauthorized unless the body hash and the signature match the request.

        ``declared`` is the result of ``declared_hash``. The signature is not verified again if there is one.
        Raises TooManyFailures instead if too many refusals are delayed.
        """
        body_hash = hash_of(body) if len(body) < LARGE else await anyio.to_thread.run_sync(hash_of, body)
        self.verify_hash(claim, scope, headers, body_hash, declared)

    def verify_hash(
        self, claim: Claim, scope: Scope, headers: Headers, body_hash: bytes, declared: bytes | None = None
    ) -> None:
        """Do as ``verify``, with the hash of the body in hexadecimal digits."""
        if declared is not None:
            problem = bad_body(declared, headers, body_hash, claim.proof)
        else:
            problem = self._signatures.mismatch(_signed(scope, headers), body_hash, claim.proof, claim.secret)
        if problem:
            raise self.failed(claim.subject, problem)

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


def _signed(scope: Scope, headers: Headers) -> Signed:
    return Signed(method=scope["method"].encode(), path=scope["raw_path"], query=scope["query_string"], headers=headers)


def address_of(scope: Scope) -> str:
    """Return the address of the client from an ASGI scope; empty if the server did not set it.

    The listener has put it there: the other end of the connection, or the client of a trusted proxy.
    """
    return scope["client"][0] if scope.get("client") else ""
