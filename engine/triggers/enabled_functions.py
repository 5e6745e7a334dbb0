"""Waits of sources until a disabled function is enabled."""

from __future__ import annotations

import asyncio

from engine.functions.catalog import Catalog
from engine.model import Function
from engine.model.urn import LATEST


class EnabledFunctions:
    """Waits for functions whose ``max_instances`` is 0."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiters: dict[asyncio.Future[None], int] = {}

    async def wait_for(self, function_id: int) -> bool:
        """Wait until a function is enabled or deleted. Return whether the call waited."""
        waited = False
        while (function := self._catalog.resolve(function_id, LATEST)) is not None and function.max_instances == 0:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[waiter], waited = function_id, True
            try:
                await waiter
            finally:
                del self._waiters[waiter]
        return waited

    def follow(self, function_id: int, latest: Function | None) -> None:
        """Wake the waits for a function that has changed."""
        for waiter, wanted in self._waiters.items():
            if wanted == function_id and not waiter.done():
                waiter.set_result(None)
