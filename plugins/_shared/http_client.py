"""HTTP client that all parts of a plugin share. The client is opened at its first use and closed with the engine."""

from __future__ import annotations

import asyncio
import ssl
from types import ModuleType
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskStatus

from engine import PluginContext, SettingsError

if TYPE_CHECKING:
    import httpx


class HttpService:
    """HTTP client that is opened on first use and closed with the engine.

    Runs as a plugin's service, or as part of one.
    """

    def __init__(self, timeout: float, ca_file: str = "") -> None:
        """Trust the certificate authorities in ``ca_file`` and the default ones.

        Raises SettingsError if the file cannot be read or has no valid certificate.
        """
        if ca_file:
            try:
                ssl.create_default_context(cafile=ca_file)
            except OSError as error:
                raise SettingsError(f"ca_file {ca_file} cannot be used: {error}") from None
        self._timeout, self._ca_file = timeout, ca_file
        self._requested, self._open = asyncio.Event(), asyncio.Event()
        self._client: httpx.AsyncClient | None = None

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await self._requested.wait()
        # Requests must reach the configured address: no redirects, and no proxy or certificates from the environment.
        trust = _httpx().create_ssl_context(trust_env=False)
        if self._ca_file:
            trust.load_verify_locations(self._ca_file)
        # Callers limit their requests. A limit of all connections would let servers that hang block the others.
        limits = _httpx().Limits(max_connections=None, max_keepalive_connections=20)
        async with _httpx().AsyncClient(
            timeout=self._timeout, limits=limits, verify=trust, follow_redirects=False, trust_env=False
        ) as client:
            self._client = client
            self._open.set()
            try:
                await anyio.sleep_forever()
            finally:
                self._open.clear()

    async def client(self) -> httpx.AsyncClient:
        """Return the HTTP client, after opening it if necessary. Raises SettingsError if httpx is not installed."""
        _httpx()
        self._requested.set()
        await self._open.wait()
        assert self._client is not None
        return self._client


def _httpx() -> ModuleType:
    try:
        import httpx
    except ImportError:
        raise SettingsError("sending over HTTP needs the extra http: pip install '.[http]' in the clone") from None
    return httpx
