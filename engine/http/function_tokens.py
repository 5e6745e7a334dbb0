"""Tokens by which instances of functions use the API, and authentication by them.

A token names project, function, instance and epoch, and is signed with a key of the storage, so that each engine of a
storage can check it. The epoch is the number of the engine's start. A token is valid while its instance lives.
"""

from __future__ import annotations

import hmac
import math
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Literal

import msgspec

from engine.asgi.wire import Headers, Receive, Scope
from engine.auth.roles import Principal
from engine.auth.verifier import SignatureVerifier, address_of
from engine.errors import MissingCredentials, Unauthorized
from engine.http.auth import Authenticator, admit_as
from engine.model import Function
from engine.protocols import Store

STORE = "functiond.functions"  #: no table of a plugin has this name
_TABLE = "tokens"
_HINT = "send the variable FUNCTIOND_TOKEN of the function as X-Auth-Token, as functiond.Client() does"


class FunctionTokens:
    """Issuer of the tokens of one engine. Call ``load`` once, before the first instance starts."""

    def __init__(self, store: Store, role: Literal["none", "invoke", "read", "admin"]) -> None:
        self._store, self._role, self._key = store, role, b""
        self.epoch = 0

    async def load(self) -> None:
        """Read the key, and begin the next epoch."""
        rows = dict(await self._store.scan(_TABLE))
        self._key, self.epoch = rows.get("key") or secrets.token_bytes(32), int(rows.get("epoch", b"0")) + 1
        await self._store.write(_TABLE, {"key": self._key, "epoch": b"%d" % self.epoch})

    def token_of(self, function: Function, instance: str) -> str:
        text = urlsafe_b64encode(msgspec.json.encode((function.project, function.name, instance, self.epoch)))
        return f"{text.decode()}.{self._signature(text).decode()}"

    def principal_of(self, token: bytes, function_of: Callable[[str], Function | None]) -> Principal | None:
        """Return the identity of an instance; None if the token is not valid.

        ``function_of`` returns the function of a living instance.
        """
        text, _, signature = token.partition(b".")
        if self._role == "none" or not hmac.compare_digest(signature, self._signature(text)):
            return None
        project, name, instance, epoch = msgspec.json.decode(urlsafe_b64decode(text))
        if epoch != self.epoch or function_of(instance) is None:
            return None
        who, prefix = f"function {project}/{name}", f"/v2/{project}/"
        return Principal(name=who, project=project, prefix=prefix, expires=math.inf, role=self._role, instance=instance)

    def _signature(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256").hex().encode()


class FunctionAuthenticator:
    """Check of requests by functions. Credentials of the engine count, too, if it has some."""

    def __init__(
        self,
        principal_of: Callable[[bytes], Principal | None],
        verifier: SignatureVerifier,
        others: Authenticator | None,
    ) -> None:
        self._principal_of, self._verifier, self._others = principal_of, verifier, others

    async def admit(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """Authenticate a request. See ``Authenticator.admit``; no path is open."""
        token = headers.get(b"x-auth-token")
        principal = None if token is None else self._principal_of(token)
        if principal is not None:
            admit_as(scope, principal)
            return receive
        if self._others is not None:
            return await self._others.authenticate(scope, headers, receive)
        if token is None:
            raise MissingCredentials(f"functions need a token; {_HINT}")
        with self._verifier.attempt(address_of(scope)):
            raise Unauthorized(f"the X-Auth-Token is not that of a running instance; {_HINT}")
