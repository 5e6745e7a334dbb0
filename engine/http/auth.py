"""Authentication of requests by token, or by signature with an access key, and their restriction to one project.

A signature covers the hash of the body. If X-Sdk-Content-Sha256 declares the hash, the signature is verified before the
body is read, and then the body is compared with the hash. Otherwise, it is verified after the whole body has been read
and hashed. Either happens before a handler gets the body. The date of a signed request may differ from the engine's
time by up to 15 minutes.

Within these 15 minutes, anyone who has seen a signed request can replay it. The signature has no nonce, and two equal
requests of the same second have equal signatures, so a legitimate repetition cannot be distinguished from a replay.
Rejecting both would reject correct clients. Two measures protect against replays: TLS up to a proxy of your own (it
must leave Host and path unchanged), and an Idempotency-Key, which is signed too and makes a replay harmless.

Pages of the console also accept the cookie of a session (``console/session``). The API never does: browsers add
cookies to requests on their own, whichever page causes the request. HTTP Basic is accepted nowhere, for that reason.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from hmac import compare_digest
from pathlib import Path

from engine.asgi.addresses import network_of
from engine.asgi.error_replies import hold_back
from engine.asgi.wire import HOLD_FOR, Headers, Message, ReadBody, Receive, Scope, read_body, read_pieces
from engine.auth.credentials import AccessKey, Principals, Token
from engine.auth.denials import DenialLog
from engine.auth.roles import PRINCIPAL, Principal
from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import Claim, SignatureVerifier, address_of
from engine.code.store import PACKAGE_LIMIT
from engine.errors import AccessDenied, CodePackageTooLarge, MissingCredentials, PayloadTooLarge, Unauthorized
from engine.http.api.gateway import OF_CALLER
from engine.http.api.routing import CODE_LIMIT
from engine.http.spool import CLEAN_UP, IN_MEMORY, Spool, SpoolSpace
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.triggers.routes import PROJECT

CALL = "an API of a gateway"  #: use of credentials outside the API, as refusals name it


class Authenticator:
    """Check of the credentials of requests, against access keys and tokens.

    ``body_limits`` are the largest bodies of signed requests in bytes, by the last segment of the request's path.
    Requests to ``open_paths`` need no credentials. Those to ``bare_paths`` get a shorter reply without valid ones.
    ``failures`` counts failed attempts and delays their replies. Large bodies are in the folder ``spool`` until they
    are verified. ``replaced`` announces new credentials.
    """

    def __init__(
        self,
        keys: Sequence[AccessKey],
        tokens: Sequence[Token],
        *,
        clock: Clock,
        failures: AuthThrottle,
        body_limits: Mapping[bytes, int],
        open_paths: Iterable[str] = (),
        bare_paths: Iterable[str] = (),
        spool: Path | None = None,
    ) -> None:
        self.replaced: Signal[[]] = Signal()  #: the credentials have changed
        self.replace(keys, tokens)
        self._spooling = SpoolSpace(spool or Path(tempfile.gettempdir()))
        self._clock, self._verifier, self._log = clock, SignatureVerifier(clock, failures), DenialLog(clock)
        self._limits, self._open, self._bare = dict(body_limits), frozenset(open_paths), frozenset(bare_paths)

    def replace(self, keys: Sequence[AccessKey], tokens: Sequence[Token]) -> None:
        """Replace all keys and tokens.

        A signed request whose body is still being read is verified with the previous ones.
        """
        self.principals = Principals(keys, tokens)  #: identities of the present credentials
        self.replaced()

    def several(self) -> bool:
        return self.principals.several

    async def admit(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Authenticate a request. Return the ASGI callable from which its body is to be read.

        The project and the principal of the caller are stored in ``scope``. Raises MissingCredentials; Unauthorized if
        credentials are wrong, with the delay of its reply; TooManyFailures instead if too many replies are delayed;
        AccessDenied if the path names another project than theirs. The body of a signed request is read first: raises
        PayloadTooLarge or CodePackageTooLarge if it exceeds its limit, and ClientDisconnect if the client disconnects.
        """
        path = scope["path"]
        if path in self._open:
            return receive
        if path not in self._bare:
            return await self.authenticate(scope, headers, receive)
        delay = 0.0
        if b"x-auth-token" in headers or b"authorization" in headers:
            try:
                return await self.authenticate(scope, headers, receive)
            except Unauthorized as error:  # a probe with an expired token must not have the engine killed
                delay = error.delay
        await hold_back(delay)
        return receive

    async def authenticate(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Do as ``admit``, whatever the path."""
        principal = self._by_token(scope, headers)
        if principal is None:
            claim, principal = self._claim(scope, headers)
            receive = await self._verified(claim, principal, scope, headers, receive)
        admit_as(scope, principal)
        return receive

    def check_token(self, scope: Scope, token: bytes) -> Principal:
        """Return the principal of a token that somebody signs in with. Counts and raises like ``identify``."""
        with self._verifier.attempt(address_of(scope)):
            return self._unexpired(self.principals.of_token(token), "the token", "this is no token of this engine")

    def check_secret(self, scope: Scope, access: str, secret: bytes, token: bytes) -> Principal:
        """Return the principal of an access key that somebody signs in with. Counts and raises like ``identify``.

        ``token`` is the security token of a temporary key, empty for others. Expiry is told only to those who know the
        secret key.
        """
        with self._verifier.attempt(address_of(scope)):
            wrong = "the access key, the secret key or the security token is wrong"
            return self._unexpired(self.principals.of_secret(access, secret, token), "the access key", wrong)

    def _unexpired(self, principal: Principal | None, name: str, wrong: str) -> Principal:
        if principal is None:
            raise Unauthorized(wrong)
        if self._clock.now() >= principal.expires:
            raise Unauthorized(f"{name} has expired")
        return principal

    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str:
        """Authenticate a request that calls a function outside the API. Return the project of its credentials.

        ``read`` is called only if the body is needed, and its errors pass. Raises Unauthorized if credentials are
        missing or wrong, with the delay of its reply; TooManyFailures instead if too many replies are delayed;
        AccessDenied if the role may not invoke.
        """
        principal = self._by_token(scope, headers)
        if principal is None:
            claim, principal = self._claim(scope, headers)
            await self._verifier.verify_before(read, claim)
        try:
            principal.check(CALL, ("invoke",))
        except AccessDenied as error:
            self._log.known(principal, scope, str(error))
            raise
        return principal.project

    def _by_token(self, scope: Scope, headers: Headers) -> Principal | None:
        """Return the principal of the request's token; None if the request must be authenticated by its signature.

        The signature decides if there is no token, or if a wrong one comes with a header Authorization. Raises
        Unauthorized if the token is unknown or expired, or TooManyFailures if too many refusals are delayed.
        """
        token = headers.get(b"x-auth-token")
        if token is None:
            return None
        with self._verifier.attempt(address_of(scope)):
            principal = self.principals.of_token(token)
            if principal is not None and self._clock.now() < principal.expires:
                return principal
            if b"authorization" in headers:
                return None
            problem = "is not one of this engine's" if principal is None else "has expired"
            raise Unauthorized(f"the X-Auth-Token {problem}")

    def _claim(self, scope: Scope, headers: Headers) -> tuple[Claim, Principal]:
        """Return the signature data in the headers, not verified yet, and the principal of the access key.

        Raises Unauthorized if the header Authorization is missing or malformed, or the access key is unknown or
        expired, or X-Security-Token does not match the key. Raises TooManyFailures instead if too many refusals are
        delayed.
        """
        if b"authorization" not in headers:
            # Not counted as a failed login, because no secret was guessed.
            raise MissingCredentials(
                "credentials are needed; sign the request with an access key, or send X-Auth-Token"
            )
        claim = self._verifier.claim(scope, headers, self._secret)
        principal = self.principals.of_access(claim.proof.access)
        assert principal is not None  # the verifier has found its secret
        if problem := self._problem(principal, headers):
            raise self._verifier.failed(claim.subject, problem)
        return claim, principal

    def _secret(self, access: str) -> bytes | None:
        key = self.principals.of_access(access)
        return key.secret if key else None

    def _problem(self, key: Principal, headers: Headers) -> str:
        if self._clock.now() >= key.expires:
            return "the access key has expired"
        if not _same_token(headers.get(b"x-security-token"), key.token):
            return "X-Security-Token must be that of the access key" if key.token else "the key has no X-Security-Token"
        return ""

    async def _verified(
        self, claim: Claim, principal: Principal, scope: Scope, headers: Headers, receive: Receive
    ) -> Receive:
        """Read and verify the body. Return the ASGI callable that receives it again."""
        declared = self._verifier.declared_hash(claim)
        if declared is not None and HOLD_FOR in scope:
            scope[HOLD_FOR](f"project {principal.project}")
        limit = self._limits.get(scope["raw_path"].rpartition(b"/")[2], CODE_LIMIT)
        is_short = int(headers.get(b"content-length", 0)) <= IN_MEMORY and b"transfer-encoding" not in headers
        if is_short or limit != CODE_LIMIT:
            body = await read_body(receive, headers, limit)
            await self._verifier.verify(claim, body, declared)
            return _Replay(body, receive)
        spool = Spool(self._spooling, network_of(address_of(scope)), proven=declared is not None)
        scope[CLEAN_UP] = spool.close
        try:
            await read_pieces(receive, headers, limit, spool.write)
        except PayloadTooLarge:
            raise CodePackageTooLarge(PACKAGE_LIMIT) from None  # only code makes such a body large
        self._verifier.verify_hash(claim, spool.hash, declared)
        return _Spooled(spool, receive)


class _Replay:
    """ASGI receive callable that first returns a body already read, then the later messages of ``receive``."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        body, self._body = self._body, None
        return await self._receive() if body is None else {"type": "http.request", "body": body, "more_body": False}


class _Spooled:
    """ASGI receive callable that first returns a body on disk, then the later messages of ``receive``."""

    def __init__(self, spool: Spool, receive: Receive) -> None:
        self._spool, self._receive = spool, receive
        self._more = True

    async def __call__(self) -> Message:
        if not self._more:
            return await self._receive()
        message = await self._spool.receive()
        self._more = message["more_body"]
        return message


def admit_as(scope: Scope, principal: Principal) -> None:
    """Store the principal of a request and its project in ``scope``. Raises AccessDenied if the path names another."""
    scope[PRINCIPAL] = principal
    _check_project(scope["path"], principal)
    scope[PROJECT] = principal.project
    if HOLD_FOR in scope:
        scope[HOLD_FOR](f"project {principal.project}")


def _check_project(path: str, principal: Principal) -> None:
    """Raise AccessDenied if the request path names another project than that of the principal.

    ``path`` is percent-decoded, as the router matches it.
    """
    if path.startswith(principal.prefix) or path in OF_CALLER:
        return
    parts = path.split("/", 4)
    is_api = len(parts) > 1 and parts[1][:1] == "v"  # of any version; plugins serve others than v2
    named = parts[2:3] if is_api else parts[3:4] if parts[1:3] == ["console", "projects"] else []
    if named and named != [principal.project]:
        raise AccessDenied(f"these credentials are for project {principal.project} only")


def _same_token(given: bytes | None, token: bytes | None) -> bool:
    if given is None or token is None:
        return given is token
    return compare_digest(given, token)
