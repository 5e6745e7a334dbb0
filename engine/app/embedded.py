"""Engine that runs inside a Python program: ``Engine(plugins=[mine]).serve()``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.app.service import serve
from engine.config.plugin_registry import load_plugins
from engine.config.settings import Settings, load_settings
from engine.protocols import Plugin


class Engine:
    """Engine with built-in and installed plugins, which ``plugins`` extend or replace by kind.

    ``settings`` have dotted names, such as ``{"storage.data_dir": "/var/lib/functiond", "http.port": 0}``, and override
    the TOML file ``config``. Environment variables are ignored. The constructor raises SettingsError if a setting is
    invalid, or if a plugin module cannot be imported or contains no plugin. Tables of plugins, below ``plugins``, are
    validated only when the engine starts.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[Plugin] = (),
        settings: Mapping[str, Any] | None = None,
        config: Path | None = None,
    ) -> None:
        self.settings: Settings = load_settings(file=config, overrides=settings)
        self.plugins = [*load_plugins(self.settings.plugin), *plugins]

    def serve(self) -> None:
        """Run the engine and serve HTTP until SIGTERM or SIGINT. Call this method in the main thread."""
        asyncio.run(serve(self.settings, plugins=self.plugins, ready=lambda engine, url: None))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[EngineParts]:
        """Run the engine in the current event loop, without an HTTP listener, until the block ends.

        Yields the engine's components.
        """
        async with run_engine(self.settings, plugins=self.plugins) as running:
            yield running
