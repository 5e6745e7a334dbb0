"""Who sends, for plugins that ask: the API's door lends them its check of the engine's own credentials.

Whoever fails too often waits at all doors of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from engine.auth.verifier import Signers, address_of
from engine.errors import Unauthorized, Unavailable


class Door(Protocol):
    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str: ...


class BorrowedCallers:
    """Satisfies ``Callers`` for all plugins of an engine; ``lent`` once the API's door is made."""

    def __init__(self, signers: Signers, *, required: bool) -> None:
        self._signers, self._required = signers, required
        self.lent: Door | None = None

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        if self.lent is not None:
            return await self.lent.identify(scope, headers, body)
        if self._required:
            raise Unavailable("the engine is starting: retry in a moment")
        raise Unauthorized("this engine has no credentials that a request could be signed with: set auth.file")

    async def signer(
        self, keys: Mapping[str, bytes], scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes
    ) -> str:
        claim = self._signers.claim(headers, address_of(scope), keys.get)
        await self._signers.verify(claim, scope, headers, body)
        return claim.proof.access

    def attempt(self, scope: MutableMapping[str, Any]) -> AbstractContextManager[None]:
        return self._signers.attempt(address_of(scope))
