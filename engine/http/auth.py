"""Who asks: each request shows a token, or is signed with an access key; and it stays within its own project.

A signed request is believed once its whole body has been read and hashed, before any of it is used: no handler sees
what is not verified. Its date may be 15 minutes off.

Within these 15 minutes, who has seen a signed request can send the very same one again. The signature has no nonce,
and two equal requests of one second are signed alike, so they cannot be told from a replay: refusing them would
refuse clients that are right to repeat themselves. What helps: nobody but a TLS proxy of yours sees the requests
(it must leave Host and path as they are), and an Idempotency-Key, which is signed too, makes the copy harmless.

Pages of the console, which change nothing, also take a token as the password of HTTP Basic (RFC 7617), since that is
what browsers ask people for. The API does not: browsers send it by themselves, whoever made them ask.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Iterable, Mapping
from datetime import datetime

from msgspec import Struct

from engine.asgi.listener import Message, Receive, Scope
from engine.asgi.wire import Headers, read_body
from engine.auth.credentials import AccessKey, Token
from engine.auth.signing import is_same
from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import Claim, SignatureVerifier, address_of
from engine.code.store import PACKAGE_LIMIT
from engine.errors import CodePackageTooLarge, Forbidden, PayloadTooLarge, Unauthorized
from engine.http.api.functions import CODE_BODY_LIMIT
from engine.http.api.routing import CALLER
from engine.http.console.paths import is_page
from engine.model.clock import Clock
from engine.triggers.routes import PROJECT


class Principal(Struct, frozen=True, kw_only=True):
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
        failures: AuthThrottle,
        body_limits: Mapping[bytes, int],
        open_paths: Iterable[str] = (),
    ) -> None:
        self.replace(keys, tokens)
        self._clock, self._verifier = clock, SignatureVerifier(clock, failures)
        self._limits, self._open = dict(body_limits), frozenset(open_paths)

    def replace(self, keys: Iterable[AccessKey], tokens: Iterable[Token]) -> None:
        """From now on these and no others; a request whose body is still coming is judged by what it began with."""
        self._keys = {key.access: _key(key) for key in keys}
        # By their hashes, so that a search's time says nothing about them.
        self._tokens = {_digest(one.token.encode()): _token(one) for one in tokens}

    async def admit(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """What to read the body from. Raises Unauthorized, Forbidden, TooManyFailures, and what reading raises."""
        if scope["path"] in self._open:
            return receive
        holder = self._by_token(scope, headers, basic=is_page(scope["path"]))
        if holder is None:
            claim, holder = self._claim(scope, headers)
            body = await self._read(scope, headers, receive)
            await self._verifier.verify(claim, scope, headers, body)
            receive = _Replay(body, receive)
        _check_project(scope["path"], holder)
        scope[PROJECT] = holder.project
        scope[CALLER] = holder.name
        return receive

    async def identify(self, scope: Scope, headers: Headers, body: bytes) -> str:
        """The project of who asks, for a request whose path is not the API's. Raises Unauthorized, TooManyFailures."""
        holder = self._by_token(scope, headers)
        if holder is None:
            claim, holder = self._claim(scope, headers)
            await self._verifier.verify(claim, scope, headers, body)
        return holder.project

    def _by_token(self, scope: Scope, headers: Headers, *, basic: bool = False) -> Principal | None:
        """None if the request may still be good by its signature; with ``basic``, the token may be a password."""
        token, name = headers.get(b"x-auth-token"), "X-Auth-Token"
        if token is None and basic:
            token, name = _password(headers), "password"
        if token is None:
            return None
        with self._verifier.attempt(address_of(scope)):
            holder = self._tokens.get(_digest(token))
            if holder is not None and self._clock.now() < holder.expires:
                return holder
            if b"x-auth-token" in headers and b"authorization" in headers:
                return None
            problem = "is not one of this engine's" if holder is None else "has expired"
            raise Unauthorized(f"the {name} {problem}")

    def _claim(self, scope: Scope, headers: Headers) -> tuple[Claim, Principal]:
        """By what the headers say; the signature itself is still to be verified."""
        if b"authorization" not in headers:
            # Nobody guesses anything by this, so it is not counted.
            raise Unauthorized("credentials are needed: sign the request with an access key, or send X-Auth-Token")
        claim = self._verifier.claim(headers, address_of(scope), self._secret)
        holder = self._keys[claim.proof.access]
        if problem := self._problem(holder, headers):
            raise self._verifier.failed(claim.subject, problem)
        return claim, holder

    def _secret(self, access: str) -> bytes | None:
        key = self._keys.get(access)
        return key.secret if key else None

    def _problem(self, key: Principal, headers: Headers) -> str:
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


class _Replay:
    """Gives a body that was read before once more, then what comes after it."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        return await self._receive() if body is None else {"type": "http.request", "body": body, "more_body": False}


def _check_project(path: str, holder: Principal) -> None:
    """By the path as the router reads it, which is decoded."""
    if path.startswith(holder.prefix):
        return
    parts = path.split("/", 4)
    named = parts[2:3] if parts[1:2] == ["v2"] else parts[3:4] if parts[1:3] == ["console", "projects"] else []
    if named and named != [holder.project]:
        raise Forbidden(f"these credentials are for project {holder.project} only")


def _password(headers: Headers) -> bytes | None:
    """That of HTTP Basic; None if something else is shown, or nothing. Raises no error: nonsense is no password."""
    scheme, _, text = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(text.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _same_token(given: bytes | None, token: bytes | None) -> bool:
    if given is None or token is None:
        return given is token
    return is_same(given, token)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def _key(key: AccessKey) -> Principal:
    token = key.token.encode() if key.token is not None else None
    return _holder(key.access, key.project, key.expires, secret=key.secret.encode(), token=token)


def _token(one: Token) -> Principal:
    return _holder(f"token {_digest(one.token.encode()).hex()[:12]}", one.project, one.expires)


def _holder(
    name: str, project: str, expires: datetime | None, *, secret: bytes = b"", token: bytes | None = None
) -> Principal:
    until = expires.timestamp() if expires else math.inf
    return Principal(name=name, project=project, prefix=f"/v2/{project}/", expires=until, secret=secret, token=token)
