"""Who sends, for plugins that ask: the API's door lends them its check of the engine's own credentials.

Whoever fails too often waits at all doors of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from engine.auth.verifier import SignatureVerifier, address_of
from engine.errors import Unauthorized, Unavailable


class TriggerIngress(Protocol):
    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str: ...


class DeferredAuthenticator:
    """Satisfies ``Callers`` for all plugins of an engine; ``target`` once the API's door is made."""

    def __init__(self, verifier: SignatureVerifier, *, required: bool) -> None:
        self._verifier, self._required = verifier, required
        self.target: TriggerIngress | None = None

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        if self.target is not None:
            return await self.target.identify(scope, headers, body)
        if self._required:
            raise Unavailable("the engine is starting: retry in a moment")
        raise Unauthorized("this engine has no credentials that a request could be signed with: set auth.file")

    async def signer(
        self, keys: Mapping[str, bytes], scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes
    ) -> str:
        claim = self._verifier.claim(headers, address_of(scope), keys.get)
        await self._verifier.verify(claim, scope, headers, body)
        return claim.proof.access

    def attempt(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[None]:
        return self._verifier.attempt(address_of(scope))
