"""Process that serves an engine: signals, listener, garbage collection."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from urllib.parse import urlsplit

import anyio
import structlog
from msgspec.structs import replace

from engine.app.api_wiring import build_apps
from engine.app.backup_wiring import note_needs
from engine.app.connections import set_file_limit, warn_of_low_limit
from engine.app.function_api import app_by_user
from engine.app.health import EngineHealth
from engine.app.lifecycle import drain, run_engine
from engine.app.parts import EngineParts
from engine.app.service_manager import service_manager, signs_of_life
from engine.asgi.listener import listen
from engine.config.settings import AuthSettings, Settings
from engine.executors.local.choice import several_projects
from engine.executors.local.spawners import HostSpawner
from engine.http.reload import reloading
from engine.protocols import Plugin

log = structlog.get_logger("functiond")

#: Seconds that pending replies may take after running work has drained.
PRE_STOP_GRACE = 1.0


async def serve(
    settings: Settings,
    *,
    plugins: Iterable[Plugin] = (),
    ready: Callable[[EngineParts, str], object],
    read_auth: Callable[[], AuthSettings] | None = None,
) -> None:
    """Run an engine and serve HTTP until SIGTERM or SIGINT. Call ``ready(engine, url)`` when requests are accepted.

    A second SIGTERM or SIGINT ends the grace period for running attempts. SIGHUP replaces the credentials of clients
    with the result of ``read_auth``, and loads the TLS certificate of all listeners again. A service manager that
    waits for messages is told when the engine serves, reloads and stops, and that it works. Raises the errors of
    ``run_engine``.
    """
    manager = service_manager()
    began = time.perf_counter()
    _tune_garbage_collector()
    set_file_limit()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with run_engine(settings, plugins=plugins) as engine:
            warn_of_low_limit(engine.connections, settings.http.connections)
            async with (
                signs_of_life(manager, EngineHealth(engine).stalls),
                reloading(
                    engine.authenticator,
                    engine.sessions,
                    read_auth and partial(_read_credentials, engine, read_auth),
                    engine.tls,
                    report=manager.reloading if manager else None,
                ),
                listening(engine) as url,
            ):
                gc.collect()
                gc.freeze()
                note_needs(engine)
                log.info("serving", url=url, port=urlsplit(url).port, seconds=round(time.perf_counter() - began, 3))
                ready(engine, url)
                if manager:
                    manager.ready(f"serving {url}")
                async for number in signals:
                    running = engine.scheduler.statistics().running
                    log.info(
                        "stopping", signal=signal.Signals(number).name, running=running, grace=engine.settings.grace
                    )
                    if manager:
                        manager.stopping(f"{running} invocations run, for up to {engine.settings.grace:g} s")
                    break
                await _drain(engine, signals)  # meanwhile, new requests get 503, and waiting callers get their results
        log.info("stopped")


@asynccontextmanager
async def listening(engine: EngineParts) -> AsyncIterator[str]:
    """Serve the API and the console, and the API for functions, until the block ends. Yield the URL of the former."""
    http, tls, rules, sockets = engine.settings.http, engine.tls, engine.connections, engine.function_sockets
    app, for_functions = build_apps(engine)
    by_user = app_by_user(engine.pool.function_uids, app, for_functions) if engine.tells_functions else nullcontext()
    own = listen(for_functions, "", 0, grace=PRE_STOP_GRACE, rules=rules.gateway, sockets=sockets) if sockets else None
    with by_user as choose:
        api = replace(rules.api, choose=choose)
        main = listen(app, http.host, http.port, grace=PRE_STOP_GRACE, rules=api, tls=tls)
        async with own or nullcontext(), main as port:
            if engine.function_api == "open":
                log.info("functions need no token for the API", hint="run as root with the sandbox, or set auth.file")
            yield f"{'https' if tls else 'http'}://{f'[{http.host}]' if ':' in http.host else http.host}:{port}"


def _read_credentials(engine: EngineParts, read_auth: Callable[[], AuthSettings]) -> AuthSettings:
    """Return the credentials of a reload. Raises SettingsError if a start with them would be refused."""
    auth = read_auth()
    unseparated = engine.pool.walls["isolation"].partition(",")[0] == HostSpawner.name
    if auth.projects > 1 and unseparated and engine.settings.executor.isolation == "auto":
        raise several_projects(auth.projects, "no sandbox works here")
    return auth


async def _drain(engine: EngineParts, signals: AsyncIterator[signal.Signals]) -> None:
    """Drain the engine for up to the grace period. A further item of ``signals`` ends the grace period at once."""
    max_wait = anyio.CancelScope()

    async def watch_signals() -> None:
        async for number in signals:
            log.info("stopping at once", signal=signal.Signals(number).name)
            max_wait.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch_signals)
        await drain(engine, max_wait)
        tasks.cancel_scope.cancel()


def _tune_garbage_collector() -> None:
    """Exclude modules from cyclic garbage collection, and make collections rare.

    Reference counting frees nearly all later objects, so collections would mostly cost time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
