"""Engine that a Python program runs: on its event loop, on a thread, or as the whole process."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Never

import structlog
from msgspec.structs import replace

from engine.app.lifecycle import run_engine
from engine.app.parts import EngineParts
from engine.app.service import serve
from engine.config.plugin_registry import load_plugins
from engine.config.settings import Settings, load_settings
from engine.embedded.hosting import EngineTask, EngineThread, Host
from engine.embedded.running import AsyncRunningEngine, RunningEngine, refuse_in_description
from engine.errors import SettingsError
from engine.protocols import Plugin

#: Settings of the fast mode that a program may override: nothing that the engine holds is worth a wait at its end.
_DEFAULTS = {"grace": 0.0, "storage.ballast": 0}
log = structlog.get_logger("functiond")


@contextmanager
def temporary_data(settings: Settings) -> Iterator[Settings]:
    """Yield the settings with a new data directory, which is deleted at the end of the block.

    A directory that a configuration file names is left alone. ``tempfile.TemporaryDirectory`` would delete the
    directory at the exit of each fork of the program, too.
    """
    folder = tempfile.mkdtemp(prefix="functiond-fast-")
    try:
        yield replace(settings, storage=replace(settings.storage, data_dir=str(Path(folder, "data"))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Engine:
    """Engine with built-in and installed plugins, which ``plugins`` extend or replace by kind.

    ``settings`` have dotted names, such as ``{"storage.data_dir": "/var/lib/functiond", "http.port": 8080}``, and
    override the TOML file ``config``. Without both, the port is any free one. Environment variables are ignored. With
    ``fast``, which is for tests, the data is in a temporary folder, and nothing is synced to disk.

    The constructor raises SettingsError if a setting is invalid, or if a plugin module cannot be imported or contains
    no plugin. Tables of plugins, below ``plugins``, are validated only when the engine starts.

    ``async with Engine(…) as engine`` runs the engine on the running event loop, ``with Engine.running(…) as engine``
    on a thread. Either installs no signal handler. Errors of the start are raised, such as SettingsError and
    DataDirectoryLocked. An error that ends the engine later is raised at the end of the block. At the end of the block,
    running invocations have the grace period (the setting ``grace``) to end; a second Ctrl-C ends the wait.
    """

    def __init__(
        self,
        *,
        plugins: Iterable[Plugin] = (),
        settings: Mapping[str, Any] | None = None,
        config: str | os.PathLike[str] | None = None,
        fast: bool = False,
    ) -> None:
        given = dict(settings or {})
        if config is None:
            given = {"http.port": 0, **given}
        if fast and (folder := given.get("storage.data_dir")) is not None:  # never run on data that is kept
            raise SettingsError(
                f"storage.data_dir is {folder!r}, but the fast mode keeps nothing: leave out storage.data_dir, or fast"
            )
        file = None if config is None else Path(config)
        self.settings: Settings = load_settings(file=file, overrides={**_DEFAULTS, **given} if fast else given)
        self.plugins = [*load_plugins(self.settings.plugin), *plugins]
        self._fast = fast
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncRunningEngine:
        task = EngineTask(Host(self.run))
        running = AsyncRunningEngine(*await task.start())
        self._stack.push_async_callback(running.close)
        self._stack.push_async_callback(task.stop)
        return running

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def __enter__(self) -> Never:
        raise TypeError("an Engine needs an event loop: use `async with Engine(…)`, or `with Engine.running(…)`")

    def __exit__(self, *error: object) -> None:
        """Exist so that ``with`` reaches ``__enter__``, which explains."""

    @classmethod
    @contextmanager
    def running(
        cls,
        *,
        plugins: Iterable[Plugin] = (),
        settings: Mapping[str, Any] | None = None,
        config: str | os.PathLike[str] | None = None,
        fast: bool = False,
    ) -> Iterator[RunningEngine]:
        """Run an engine on a thread of its own until the block ends. The parameters are those of the constructor."""
        thread = EngineThread(partial(Host, cls(plugins=plugins, settings=settings, config=config, fast=fast).run))
        running = RunningEngine(*thread.start())
        with ExitStack() as stack:
            stack.callback(running.close)
            stack.callback(thread.stop)
            yield running

    def serve(self) -> None:
        """Run the engine and serve HTTP until SIGTERM or SIGINT. Call this method in the main thread."""
        refuse_in_description()
        if self._fast:
            raise SettingsError("serve() keeps data, and the fast mode does not: leave out fast, or use running()")
        asyncio.run(serve(self.settings, plugins=self.plugins, ready=lambda engine, url: None))

    @asynccontextmanager
    async def run(self) -> AsyncIterator[EngineParts]:
        """Run the engine in the current event loop, without an HTTP listener, until the block ends.

        Yields the engine's components.
        """
        refuse_in_description()
        with temporary_data(self.settings) if self._fast else nullcontext(self.settings) as settings:
            if self._fast:
                log.warning("fast mode for tests: nothing is kept", data_dir=settings.storage.data_dir)
            async with run_engine(settings, plugins=self.plugins, durable=not self._fast) as running:
                yield running
