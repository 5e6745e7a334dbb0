"""One process: an engine, its HTTP door, and the signals that end it."""

from __future__ import annotations

import gc
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable

import anyio
import structlog

from engine import __version__
from engine.app.collectors import problems, read_figures, reasons_not_ready
from engine.app.lifecycle import EngineParts, drain, run_engine
from engine.asgi.listener import App, listen
from engine.config.settings import AuthSettings, Settings
from engine.http.api.parts import ApiDependencies, HealthChecks
from engine.http.auth import Authenticator
from engine.http.console import paths as console_paths
from engine.http.console.parts import ConsoleParts
from engine.http.console.site import Console
from engine.http.reload import reloading
from engine.http.server import create_app
from engine.metrics.prometheus import Telemetry
from engine.protocols import Plugin

log = structlog.get_logger("functiond")

#: Seconds that replies under way get once the work has drained.
PRE_STOP_GRACE = 1.0
#: Descriptors that an engine wants to be able to open.
ENOUGH_FILES = 65_536


async def serve(
    settings: Settings,
    *,
    plugins: Iterable[Plugin] = (),
    ready: Callable[[EngineParts, str], object],
    read_auth: Callable[[], AuthSettings] | None = None,
) -> None:
    """Run until SIGTERM or SIGINT; ``ready(engine, url)`` is called once requests are taken.

    A second signal ends the grace period. On SIGHUP, credentials are replaced by what ``read_auth`` gives.
    """
    began = time.perf_counter()
    _open_enough()
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with run_engine(settings, plugins=plugins) as engine:
            host = settings.http.host
            authenticator = engine.plugins.callers.target = make_authenticator(engine)
            async with (
                reloading(authenticator, read_auth),
                listen(_make_app(engine, authenticator), host, settings.http.port, grace=PRE_STOP_GRACE) as port,
            ):
                url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
                _calm_collector()
                log.info("serving", url=url, port=port, seconds=round(time.perf_counter() - began, 3))
                ready(engine, url)
                async for number in signals:
                    running = engine.scheduler.statistics().running
                    log.info(
                        "stopping", signal=signal.Signals(number).name, running=running, grace=engine.settings.grace
                    )
                    break
                await _drain(engine, signals)  # callers hear 503 meanwhile, and those who wait for a result get it
        log.info("stopped")


def _make_app(engine: EngineParts, authenticator: Authenticator | None) -> App:
    parts = api_parts(engine)
    console = Console(_console_parts(engine, parts)) if engine.settings.http.console else None
    return create_app(
        parts,
        authenticator=authenticator,
        mounts=engine.plugins.mounts,
        more=console.resources() if console else (),
        refuse=console.refuse if console else None,
    )


def _console_parts(engine: EngineParts, api: ApiDependencies) -> ConsoleParts:
    return ConsoleParts(
        api=api,
        figures=lambda: read_figures(engine),
        unended=lambda function_id: engine.backlog.of(function_id)[0],
        running=engine.scheduler.running,
        services=lambda: engine.sources.statistics().services,
    )


async def _drain(engine: EngineParts, signals: AsyncIterator[signal.Signals]) -> None:
    """The next signal says that nobody wants to wait for what runs: it goes back to WAIT."""
    max_wait = anyio.CancelScope()

    async def listen_on() -> None:
        async for number in signals:
            log.info("stopping at once", signal=signal.Signals(number).name)
            max_wait.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen_on)
        await drain(engine, max_wait)
        tasks.cancel_scope.cancel()


def make_authenticator(engine: EngineParts) -> Authenticator | None:
    """None where no credentials are set: then the settings have made sure that only this machine can ask."""
    auth, http = engine.settings.auth, engine.settings.http
    if not auth.required:
        return None
    limits = {b"invocations-async": http.async_body_limit, b"invocations": http.sync_body_limit}
    figures = ("/readyz", "/metrics") if auth.open_metrics else ()
    pages = console_paths.OPEN if http.console else ()
    return Authenticator(
        auth.keys,
        auth.tokens,
        clock=engine.clock,
        failures=engine.failures,
        body_limits=limits,
        open_paths=("/healthz", *figures, *pages),
    )


def _open_enough() -> None:
    """A connection, an instance and a reader each cost descriptors: take what the hard limit grants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def _calm_collector() -> None:
    """What the start made stays; and what requests make is freed by its counts: look for cycles seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def api_parts(engine: EngineParts) -> ApiDependencies:
    """What the API needs of an engine."""
    telemetry = Telemetry(lambda: read_figures(engine))
    return ApiDependencies(
        intake=engine.intake,
        dispatcher=engine.dispatcher,
        records=engine.storage.records,
        identity=engine.storage.identity,
        catalog=engine.catalog,
        versions=engine.versions,
        aliases=engine.aliases,
        codes=engine.codes,
        clock=engine.clock,
        region=engine.settings.http.region,
        resources=engine.resources,
        usage=engine.usage,
        redrive=engine.redrive,
        source_state=engine.sources.state,
        source_settled=engine.sources.settled,
        standing=engine.plugins.standing,
        audit=engine.audit,
        logs=engine.logs,
        log_archive=engine.pool,
        version=__version__,
        mounted=engine.plugins.mounts.operations,
        instances=engine.pool.alive,
        async_body_limit=engine.settings.http.async_body_limit,
        sync_body_limit=engine.settings.http.sync_body_limit,
        update_resets=engine.settings.http.update_resets,
        health=HealthChecks(
            alive=lambda: problems(engine),
            ready=lambda: reasons_not_ready(engine),
            about=lambda: {"isolation": engine.pool.isolation, "http_network": engine.pool.http_network},
            metrics=telemetry.render,
        ),
    )
