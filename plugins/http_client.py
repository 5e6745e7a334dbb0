"""One HTTP client for all of a plugin: opened when it is first asked for, closed with the engine."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus

from engine import PluginContext, SettingsError

if TYPE_CHECKING:
    import httpx


class HttpService:
    """A ``PluginService`` to be used as it is, or within another's ``run``."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._asked, self._open = asyncio.Event(), asyncio.Event()
        self._client: httpx.AsyncClient | None = None

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await self._asked.wait()
        # What a sender means is its own matter: no redirect leads elsewhere, no proxy of the environment comes between.
        async with _httpx().AsyncClient(timeout=self._timeout, follow_redirects=False, trust_env=False) as client:
            self._client = client
            self._open.set()
            try:
                await anyio.sleep_forever()
            finally:
                self._open.clear()

    async def client(self) -> httpx.AsyncClient:
        """Raises SettingsError if the library is not installed."""
        _httpx()
        self._asked.set()
        await self._open.wait()
        assert self._client is not None
        return self._client


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise SettingsError("sending over HTTP needs the extra http: pip install 'functiond[http]'") from None
    return httpx
