"""Running engines as programs see them: their URL, clients, and the deployment of functions."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Any

from engine.config.settings import Settings
from engine.embedded.deploying import deploy

if TYPE_CHECKING:
    from functiond import App, AsyncClient, Client


class RunningEngine:
    """Engine on a thread of its own. All threads may use it."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings, self._clients = settings, ExitStack()

    def client(self, **options: Any) -> Client:
        """Return a new client, which is closed with the engine. ``options`` are those of ``Client``."""
        from functiond import Client

        return self._clients.enter_context(Client(self.url, **{**access(self.settings), **options}))

    def deploy(self, app: App) -> None:
        """Deploy the functions of an app, and connect the app to this engine.

        Raises UsageError if the app is not a name in a module, its module cannot be imported, or its package cannot be
        made.
        """
        client = self.client()
        deploy(app, client.configuration)
        app.connect(client)

    def close(self) -> None:
        self._clients.close()


class AsyncRunningEngine:
    """Engine on an event loop."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings, self._clients = settings, AsyncExitStack()

    def client(self, **options: Any) -> AsyncClient:
        """Return a new client, which is closed with the engine. ``options`` are those of ``AsyncClient``."""
        from functiond import AsyncClient

        client = AsyncClient(self.url, **{**access(self.settings), **options})
        self._clients.push_async_exit(client)
        return client

    async def deploy(self, app: App) -> None:
        """Deploy the functions of an app, and connect the app to this engine, like ``RunningEngine.deploy``."""
        client = self.client()
        await asyncio.to_thread(deploy, app, client.configuration)
        app.connect(client, engine_loop=asyncio.get_running_loop())

    async def close(self) -> None:
        await self._clients.aclose()


def access(settings: Settings) -> dict[str, Any]:
    """Return the options of a client of the engine with these settings. None of them comes from the environment.

    The credentials are the first of the role ``admin``.
    """
    auth, common = settings.auth, {"ca_file": settings.http.tls_certificate}
    for key in auth.keys:
        if key.role == "admin":
            names = {"access_key": key.access, "secret_key": key.secret, "token": key.token}
            return {"project": key.project, **names, **common}
    token = next((one for one in auth.tokens if one.role == "admin"), None)
    if token is not None:
        return {"project": token.project, "token": token.token, **common}
    return {"project": "default", "token": "", **common}
