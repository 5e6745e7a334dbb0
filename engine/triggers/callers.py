"""Authentication of HTTP requests to plugins, by credentials of the engine or by keys that a plugin has.

Failed attempts count for the whole engine: the API and all plugins delay refusals of an address that fails too often.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from engine.asgi.wire import Headers, ReadBody, Scope
from engine.auth.verifier import SignatureVerifier, address_of
from engine.errors import Unauthorized


class CallerAuthenticator(Protocol):
    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str: ...


class PluginAuthenticator:
    """Authenticator of requests for all plugins of an engine.

    ``authenticator`` checks credentials of the engine. ``identify`` rejects all requests if it is None, because no
    credentials are configured.
    """

    def __init__(self, verifier: SignatureVerifier, authenticator: CallerAuthenticator | None) -> None:
        self._verifier, self._authenticator = verifier, authenticator

    async def identify(self, scope: Scope, headers: Headers, read: ReadBody) -> str:
        if self._authenticator is None:
            raise Unauthorized("no credentials are configured to check requests with: set auth.file")
        return await self._authenticator.identify(scope, headers, read)

    async def signer(self, keys: Mapping[str, bytes], scope: Scope, headers: Headers, read: ReadBody) -> str:
        claim = self._verifier.claim(headers, address_of(scope), keys.get)
        await self._verifier.verify_before(read, claim, scope, headers)
        return claim.proof.access

    def attempt(self, scope: Scope) -> AbstractContextManager[None]:
        return self._verifier.attempt(address_of(scope))
