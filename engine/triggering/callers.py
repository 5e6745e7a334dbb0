"""Who holds the engine's own credentials, for plugins that ask for them: the API's door lends them its own check."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from engine.errors import Unauthorized, Unavailable
from engine.trigger_seams import Callers


class BorrowedCallers:
    """Satisfies ``Callers`` for all plugins of an engine; ``lent`` once the API's door is made."""

    def __init__(self, *, required: bool) -> None:
        self._required = required
        self.lent: Callers | None = None

    async def identify(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], body: bytes) -> str:
        if self.lent is not None:
            return await self.lent.identify(scope, headers, body)
        if self._required:
            raise Unavailable("the engine is starting: retry in a moment")
        raise Unauthorized("this engine has no credentials that a request could be signed with: set auth.file")
