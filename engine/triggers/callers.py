"""Authentication of HTTP requests to plugins, by credentials of the engine or by keys that a plugin has.

Failed attempts count for the whole engine: an address that fails too often is rejected by the API and by all plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from engine.auth.verifier import SignatureVerifier, address_of
from engine.errors import Unauthorized, Unavailable


class CallerAuthenticator(Protocol):
    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str: ...


class DeferredAuthenticator:
    """Authenticator of requests for all plugins of an engine.

    Calls the API's authenticator, which is built after the plugins.

    ``target`` is the API's authenticator. ``identify`` rejects requests while it is None: during the start, and in an
    engine without credentials.
    """

    def __init__(self, verifier: SignatureVerifier, *, required: bool) -> None:
        self._verifier, self._required = verifier, required
        self.target: CallerAuthenticator | None = None

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        if self.target is not None:
            return await self.target.identify(scope, headers, body)
        if self._required:
            raise Unavailable("the engine is starting: retry in a moment")
        raise Unauthorized("no credentials are configured to check requests with: set auth.file")

    async def signer(
        self, keys: Mapping[str, bytes], scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes
    ) -> str:
        claim = self._verifier.claim(headers, address_of(scope), keys.get)
        await self._verifier.verify(claim, scope, headers, body)
        return claim.proof.access

    def attempt(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[None]:
        return self._verifier.attempt(address_of(scope))
