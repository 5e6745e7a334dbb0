"""Running engines as programs see them: their URL, clients, and the deployment of functions."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from functiond.app import App
from functiond.client import AsyncClient, Client
from functiond.configuration import Configuration
from msgspec.structs import asdict

from engine.config.settings import Settings
from engine.deploy import client as api
from engine.deploy.apps import PROGRAM, describe, plan_app, store_app
from engine.deploy.manifest.project import Project
from engine.deploy.packaging import BuildOptions
from engine.errors import UsageError


def deploy(app: App, configuration: Configuration, *, take_over: bool) -> None:
    """Deploy an app as ``functiond deploy MODULE:APP`` does. Functions that left its code are deleted."""
    access = asdict(configuration)
    del access["retries"], access["timeout"]  # of events; a deployment sends packages
    client = api.Client(**access)
    target, root = place_of(app)
    description = describe(target, [str(root), *(os.path.abspath(folder) for folder in sys.path)])
    project = Project(client)
    plan = plan_app(project, description, {}, BuildOptions(), prune=True, take_over=take_over)
    store_app(project, description, plan, pruned=True)


def place_of(app: App) -> tuple[str, Path]:
    """Return the name of an app, such as ``tasks:app``, and the folder from which its module is imported."""
    owners = {function.__module__ for function in app.functions.values()}
    for name, module in sorted(sys.modules.items(), key=lambda item: item[0] not in owners):
        attributes = getattr(module, "__dict__", {})
        for attribute in [key for key, value in attributes.items() if value is app]:
            if getattr(module, "__file__", None):
                full = _full_name(name, module)
                depth = full.count(".") + hasattr(module, "__path__")
                return f"{full}:{attribute}", Path(str(module.__file__)).absolute().parents[depth]
    raise UsageError("the app is not a name in a module with a file: write `app = App()` at the top of a module")


def refuse_in_description() -> None:
    """Raise UsageError in the process that imports an app's module for its deployment.

    An engine that the module starts would deploy the app from there, and so on without end.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name == PROGRAM:
        raise UsageError('the import of the module starts an engine: start it below `if __name__ == "__main__":`')


def _full_name(name: str, module: ModuleType) -> str:
    """Return the name by which other programs import a module; that of a script is the stem of its file."""
    if name != "__main__":
        return name
    spec = module.__spec__
    return spec.name.removesuffix(".__main__") if spec is not None else Path(str(module.__file__)).stem


class RunningEngine:
    """Engine on a thread of its own. All threads may use it."""

    def __init__(self, url: str, settings: Settings) -> None:
        self.url = url
        self.settings, self._clients = settings, ExitStack()

    def client(self, **options: Any) -> Client:
        """Return a new client, which is closed with the engine. ``options`` are those of ``Client``."""
        return self._clients.enter_context(Client(self.url, **{**access(self.settings), **options}))

    def deploy(self, app: App, *, take_over: bool = False) -> None:
        """Deploy the functions of an app, and connect the app to this engine.

        ``take_over``: functions that belong to another app are replaced. Raises UsageError if the app is not a name in
        a module, its module cannot be imported, or its package cannot be made.
        """
        client = self.client()
        deploy(app, client.configuration, take_over=take_over)
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
        client = AsyncClient(self.url, **{**access(self.settings), **options})
        self._clients.push_async_exit(client)
        return client

    async def deploy(self, app: App, *, take_over: bool = False) -> None:
        """Deploy the functions of an app, and connect the app to this engine, like ``RunningEngine.deploy``."""
        client = self.client()
        await asyncio.to_thread(deploy, app, client.configuration, take_over=take_over)
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
    token = next((token for token in auth.tokens if token.role == "admin"), None)
    if token is not None:
        return {"project": token.project, "token": token.token, **common}
    return {"project": "default", "token": "", **common}
