"""Who asks: each request shows a token, or is signed with an access key; and it stays within its own project.

A signed request is believed once its whole body has been read and hashed, before any of it is used: no handler sees
what is not verified. Its date may be 15 minutes off.

Within these 15 minutes, who has seen a signed request can send the very same one again. The signature has no nonce,
and two equal requests of one second are signed alike, so they cannot be told from a replay: refusing them would
refuse clients that are right to repeat themselves. What helps: nobody but a TLS proxy of yours sees the requests
(it must leave Host and path as they are), and an Idempotency-Key, which is signed too, makes the copy harmless.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime

import anyio.to_thread
import structlog
from msgspec import Struct

from engine.clock import Clock
from engine.codestore import PACKAGE_LIMIT
from engine.credentials import AccessKey, Token
from engine.errors import CodePackageTooLarge, Forbidden, PayloadTooLarge, Unauthorized
from engine.http.api.functions import CODE_BODY_LIMIT
from engine.http.api.routing import CALLER
from engine.http.failures import Failures, Subject
from engine.http.wire import Headers, read_body
from engine.serving import Message, Receive, Scope
from engine.signatures import Signatures, Signed
from engine.signing import Authorization, hash_of, is_same, read_authorization
from engine.triggering.routes import PROJECT

LARGE = 1 << 20  #: bytes of a body from which on hashing it would hold up others

log = structlog.get_logger("functiond")


class _Holder(Struct, frozen=True, kw_only=True):
    """What is known of a key or token."""

    name: str  #: fit to be shown
    project: str
    prefix: str  #: of the paths of its project
    expires: float
    secret: bytes = b""
    token: bytes | None = None


class Authenticator:
    """``body_limits`` are those of paths by their last part; ``open_paths`` need no credentials."""

    def __init__(
        self,
        keys: Iterable[AccessKey],
        tokens: Iterable[Token],
        *,
        clock: Clock,
        failures: Failures,
        body_limits: Mapping[bytes, int],
        open_paths: Iterable[str] = (),
    ) -> None:
        self.replace(keys, tokens)
        self._clock, self._failures = clock, failures
        self._limits, self._open = dict(body_limits), frozenset(open_paths)
        self._signatures = Signatures(clock)

    def replace(self, keys: Iterable[AccessKey], tokens: Iterable[Token]) -> None:
        """From now on these and no others; a request whose body is still coming is judged by what it began with."""
        self._keys = {key.access: _key(key) for key in keys}
        # By their hashes, so that a search's time says nothing about them.
        self._tokens = {_digest(one.token.encode()): _token(one) for one in tokens}

    async def admit(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """What to read the body from. Raises Unauthorized, Forbidden, TooManyFailures, and what reading raises."""
        if scope["path"] in self._open:
            return receive
        address = scope["client"][0] if scope.get("client") else ""
        holder = self._by_token(headers, address)
        if holder is None:
            signer = self._signer(headers, address)
            body = await self._read(scope, headers, receive)
            holder, receive = await self._verify(scope, headers, body, signer), _Replay(body, receive)
        _check_project(scope["path"], holder)
        scope[PROJECT] = holder.project
        scope[CALLER] = holder.name
        return receive

    async def identify(self, scope: Scope, headers: Headers, body: bytes) -> str:
        """The project of who asks, for a request whose path is not the API's. Raises Unauthorized, TooManyFailures."""
        address = scope["client"][0] if scope.get("client") else ""
        holder = self._by_token(headers, address)
        return (holder or await self._verify(scope, headers, body, self._signer(headers, address))).project

    def _by_token(self, headers: Headers, address: str) -> _Holder | None:
        """None if the request may still be good by its signature."""
        token = headers.get(b"x-auth-token")
        if token is None:
            return None
        subject = self._failures.subject(address)
        self._failures.check(subject)
        holder = self._tokens.get(_digest(token))
        if holder is not None and self._clock.now() < holder.expires:
            return holder
        if b"authorization" in headers:
            return None
        problem = "is not one of this engine's" if holder is None else "has expired"
        raise self._failed(subject, f"the X-Auth-Token {problem}")

    def _signer(self, headers: Headers, address: str) -> tuple[Authorization, _Holder, Subject]:
        """By what the headers say; the signature itself is still to be verified."""
        value = headers.get(b"authorization")
        if value is None:
            # Nobody guesses anything by this, so it is not counted.
            raise Unauthorized("credentials are needed: sign the request with an access key, or send X-Auth-Token")
        proof = read_authorization(value)
        key = self._keys.get(proof.access) if proof else None
        subject = self._failures.subject(address, proof.access if proof and key else "")
        self._failures.check(subject)
        if proof is None:
            raise self._failed(
                subject, "Authorization must be SDK-HMAC-SHA256 Access=..., SignedHeaders=..., Signature=..."
            )
        if key is None:
            raise self._failed(subject, "the access key is not one of this engine's")
        if problem := self._problem(proof, key, headers):
            raise self._failed(subject, problem)
        return proof, key, subject

    async def _verify(
        self, scope: Scope, headers: Headers, body: bytes, signer: tuple[Authorization, _Holder, Subject]
    ) -> _Holder:
        proof, key, subject = signer
        body_hash = hash_of(body) if len(body) < LARGE else await anyio.to_thread.run_sync(hash_of, body)
        signed = Signed(
            method=scope["method"].encode(), path=scope["raw_path"], query=scope["query_string"], headers=headers
        )
        if problem := self._signatures.mismatch(signed, body_hash, proof, key.secret):
            raise self._failed(subject, problem)
        return key

    def _problem(self, proof: Authorization, key: _Holder, headers: Headers) -> str:
        """What is wrong already without the body."""
        if problem := self._signatures.bad_head(headers, proof):
            return problem
        if self._clock.now() >= key.expires:
            return "the access key has expired"
        if not _same_token(headers.get(b"x-security-token"), key.token):
            return "X-Security-Token must be that of the access key" if key.token else "the key has no X-Security-Token"
        return ""

    async def _read(self, scope: Scope, headers: Headers, receive: Receive) -> bytes:
        limit = self._limits.get(scope["raw_path"].rpartition(b"/")[2], CODE_BODY_LIMIT)
        try:
            return await read_body(receive, headers, limit)
        except PayloadTooLarge:
            if limit != CODE_BODY_LIMIT:
                raise
            raise CodePackageTooLarge(PACKAGE_LIMIT) from None  # only code makes such a body large

    def _failed(self, subject: Subject, problem: str) -> Unauthorized:
        self._failures.note(subject)
        log.warning("not authenticated", client=subject[0], access=subject[1], problem=problem)
        return Unauthorized(problem)


class _Replay:
    """Gives a body that was read before once more, then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        return await self._receive() if body is None else {"type": "http.request", "body": body, "more_body": False}


def _check_project(path: str, holder: _Holder) -> None:
    """By the path as the router reads it, which is decoded."""
    if path.startswith(holder.prefix):
        return
    parts = path.split("/", 3)
    if parts[:2] == ["", "v2"] and parts[2:3] != [holder.project]:
        raise Forbidden(f"these credentials are for project {holder.project} only")


def _same_token(given: bytes | None, token: bytes | None) -> bool:
    if given is None or token is None:
        return given is token
    return is_same(given, token)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _key(key: AccessKey) -> _Holder:
    token = key.token.encode() if key.token is not None else None
    return _holder(key.access, key.project, key.expires, secret=key.secret.encode(), token=token)


def _token(one: Token) -> _Holder:
    return _holder(f"token {_digest(one.token.encode()).hex()[:12]}", one.project, one.expires)


def _holder(
    name: str, project: str, expires: datetime | None, *, secret: bytes = b"", token: bytes | None = None
) -> _Holder:
    until = expires.timestamp() if expires else math.inf
    return _Holder(name=name, project=project, prefix=f"/v2/{project}/", expires=until, secret=secret, token=token)
