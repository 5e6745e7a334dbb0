"""Authentication of signed requests. Refusals are delayed after many failures; valid signatures never are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio.to_thread
from msgspec import Struct

from engine.asgi.wire import Headers, Scope
from engine.auth.denials import DenialLog
from engine.auth.signatures import Signatures, Signed
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

    async def verify(self, claim: Claim, scope: Scope, headers: Headers, body: bytes) -> None:
        """Raise Unauthorized unless the body hash and the signature match the request.

        Raises TooManyFailures instead if too many refusals are delayed.
        """
        body_hash = hash_of(body) if len(body) < LARGE else await anyio.to_thread.run_sync(hash_of, body)
        signed = Signed(
            method=scope["method"].encode(), path=scope["raw_path"], query=scope["query_string"], headers=headers
        )
        if problem := self._signatures.mismatch(signed, body_hash, claim.proof, claim.secret):
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


def address_of(scope: Scope) -> str:
    """Return the address of the client from an ASGI scope; empty if the server did not set it."""
    return scope["client"][0] if scope.get("client") else ""
