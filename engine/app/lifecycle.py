"""Start and stop of an engine, in this order:

    data directory locked → journal checked → storage open → instances of an earlier engine killed
      → pool open → work of the previous engine recovered → scheduler, discarder, pruner run
      → dispatcher, sources, delivery run → listeners open (``service``)

Components stop in reverse order. First, the intake rejects requests, and running attempts may finish within the grace
period. Unfinished asynchronous invocations return to WAIT. The storage closes last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import structlog
from msgspec import convert
from msgspec.structs import asdict, replace

from engine import __version__
from engine.app.function_api import function_sockets, port_of
from engine.app.function_network import Choice, choose_network, tell_network
from engine.app.node_sessions import STORE, Sessions
from engine.app.parts import EngineParts, memory_budget
from engine.app.signals import connect
from engine.asgi.tls import ServerTls
from engine.auth.agencies import agency_of
from engine.code.store import CodeStore
from engine.code.unpacking import Limits
from engine.config.plugin_registry import Registry
from engine.config.settings import Settings, TelemetrySettings
from engine.errors import (
    DataDirectoryUnusable,
    DiskFailing,
    MembershipLost,
    PageDamaged,
    StoredDataUnreadable,
    Unavailable,
    recover,
)
from engine.executors.local.choice import IsolationOptions
from engine.executors.local.spawn import FunctionAccess
from engine.executors.pool import PoolOptions, open_pool
from engine.http.api.secrets import is_secret
from engine.http.function_tokens import STORE as TOKENS
from engine.http.function_tokens import FunctionTokens
from engine.isolation.bubblewrap import api_sockets
from engine.isolation.folders import find_folders
from engine.logs.feed import LogBoard
from engine.logs.forward import forwarding
from engine.metrics.otlp import OtlpExporter
from engine.metrics.spans import Tracer
from engine.model.clock import Clock, SystemClock
from engine.model.urn import LATEST
from engine.protocols import Cluster, Plugin
from engine.resources.trigger_rules import marked
from engine.runtimes.interpreters import Interpreters
from engine.scheduling.pressure import watch_pressure
from engine.storage import StorageOptions, damaged_page, open_storage
from engine.storage.data_directory import close_to_others, locked, marker_of

if TYPE_CHECKING:  # not loaded without nodes
    from engine.executors.nodes.options import NodesOptions

log = structlog.get_logger("functiond")

_STOPPING = "shutting down"
DRAIN_LOOK = 0.5  #: seconds between two looks at accepted work that drains


@asynccontextmanager
async def run_engine(
    settings: Settings, *, plugins: Iterable[Plugin] = (), clock: Clock | None = None, durable: bool = True
) -> AsyncIterator[EngineParts]:
    """Run an engine on the data directory of its settings until the block ends. Yield the engine's components.

    An engine that is not ``durable`` syncs nothing to disk: a crash of the machine can damage its data directory.
    Raises SettingsError if a table of a plugin is invalid, the TLS certificate cannot be used, or this machine lacks
    what a setting needs, such as isolation; DataDirectoryLocked if another engine uses the data directory;
    DataDirectoryUnusable if its files cannot be used. Raises JournalBroken after the start if a write failed so that
    only a restart can determine what is on disk, MembershipLost if another engine may do the work of this one, and
    DataDirectoryUnusable when accepted work has drained because damage has ended the intake.
    """
    clock, http = clock or SystemClock(), settings.http
    tls = ServerTls(Path(http.tls_certificate), Path(http.tls_key)) if http.tls_certificate else None
    data_dir, storage_settings, executor = settings.storage.path, settings.storage, settings.executor
    registry, board = Registry(plugins, settings.plugins, settings.limits), LogBoard()
    with locked(data_dir), _tracing(settings.telemetry) as tracer, forwarding(settings.logs) as board.forwarder:
        close_to_others(data_dir)
        limits = Limits(keep_free=storage_settings.free_space)
        codes = CodeStore(data_dir / "code", limits, registry.code_links, registry.check_link)
        async with (
            function_sockets(executor.function_role) as sockets,
            open_storage(_storage_options(settings, registry, durable), packages_of=await codes.mark()) as storage,
            open_pool(
                _pool_options(
                    settings,
                    marker_of(data_dir, storage.identity.name),
                    await choose_network(executor.network, storage),
                    port_of(sockets),
                    tokens := FunctionTokens(storage.store(TOKENS), executor.function_role),
                ),
                code_path=codes.folder,
                check_code=codes.check,
                board=board,
                clock=clock,
                interpreters=Interpreters(python=executor.python, node=executor.node),
            ) as pool,
        ):
            sockets += api_sockets(data_dir / "tmp") if sockets else []
            codes.belong_to(storage.identity.name)
            await tell_network(pool.walls, storage)
            engine = EngineParts(
                settings=settings,
                clock=clock,
                storage=storage,
                pool=pool,
                codes=codes,
                registry=registry,
                board=board,
                function_sockets=sockets,
                function_tokens=tokens,
                tls=tls,
                tracer=tracer,
            )
            connect(engine)
            async with services(engine):
                yield engine


@contextmanager
def _tracing(settings: TelemetrySettings) -> Iterator[Tracer | None]:
    """Export spans until the block ends. Yield the maker of spans, or None if the settings name no receiver."""
    if not settings.endpoint:
        yield None
        return
    exporter = OtlpExporter(settings.endpoint, settings.service_name, __version__)
    with exporter.running():
        yield Tracer(exporter.add, exporter.statistics, settings.sampling)


def _storage_options(settings: Settings, registry: Registry, durable: bool) -> StorageOptions:
    plugins = filter(None, map(registry.trigger, registry.triggers))
    declared = {name for plugin in plugins for name in marked(plugin, "secret")}
    return StorageOptions(
        directory=settings.storage.path,
        idempotency_retention=settings.queue.idempotency_retention,
        ballast=settings.storage.ballast,
        durable=durable,
        key_file=Path(settings.storage.key_file) if settings.storage.key_file else None,
        is_secret=lambda name: name in declared or is_secret(name),  # also of plugins that are missing
    )


def _pool_options(settings: Settings, marker: str, network: Choice, port: int, tokens: FunctionTokens) -> PoolOptions:
    storage, executor, http = settings.storage, settings.executor, settings.http
    sandbox = convert(executor, IsolationOptions, from_attributes=True)
    if executor.nodes.ray and sandbox.isolation == "auto" and executor.nodes.local != "never":
        sandbox = replace(sandbox, isolation="bubblewrap")  # without, a function could read the token of Ray
    kept = (storage.path, storage.backup_dir, storage.key_file, settings.auth.file, http.tls_key, executor.nodes.key)
    folders = find_folders(executor.folders, kept, elsewhere=bool(executor.nodes.listen))
    ports = {http.port: port, port: port}
    return PoolOptions(
        tmp=storage.path / "tmp",
        log_dir=storage.path / "logs",
        marker=marker,
        region=http.region,
        memory=memory_budget(settings),
        idle=executor.idle,
        processes=executor.processes,
        term_grace=executor.term_grace,
        access=FunctionAccess(f"http://127.0.0.1:{port}", tokens.token_of) if port else None,
        agency_of=lambda function, _: agency_of(settings.agencies, function),
        log_size=executor.log_size,
        log_space=storage.logs_size,
        nodes=_nodes_options(settings, port) if executor.nodes.listen else None,
        sandbox=replace(sandbox, folders=folders, network=network, projects=settings.auth.projects, api_ports=ports),
    )


def _nodes_options(settings: Settings, port: int) -> NodesOptions:
    from engine.executors.nodes.options import NodesOptions

    api_ports = tuple(sorted({settings.http.port, port} - {0})) if port else ()
    more = {"version": __version__, "folder": settings.storage.path / "nodes", "api_ports": api_ports, "api": port}
    more["local_slots"] = settings.executor.slots
    more["sandbox"] = (
        {"isolation": "bubblewrap"} if settings.executor.nodes.ray and settings.executor.isolation == "auto" else {}
    )
    return convert({**asdict(settings.executor.nodes), **more}, NodesOptions, from_attributes=True)


@asynccontextmanager
async def services(engine: EngineParts) -> AsyncIterator[None]:
    async with anyio.create_task_group() as services:
        services.start_soon(_end_when_lost, engine.storage.cluster)
        services.start_soon(_end_when_damaged, engine)
        await services.start(engine.loop_watch.run)
        await services.start(engine.function_changes.run)
        await _recover(engine)
        for run in (
            engine.scheduler.run,
            engine.clock_guard.run,
            engine.discarder.run,
            engine.groups.run,
            engine.pruner.run,
            engine.resources.reservations.run,
            engine.usage_store.run,
            engine.status_log.run,
        ):
            await services.start(run)
        sessions = Sessions(engine.storage.store(STORE), engine.scheduler.hold, engine.scheduler.resume)
        if await sessions.load(engine.settings.executor.nodes.lease):
            services.start_soon(sessions.run)
        if engine.pool.nodes is not None:
            await services.start(engine.pool.nodes.run, sessions, engine.storage.cluster.remaining)
        if engine.settings.queue.host_idle_gate:
            await services.start(watch_pressure, engine.scheduler)
        try:
            # Delivery stops before the sources: outcomes sent to the engine's own topics are lost unless triggers run.
            async with _service(engine.dispatcher.run), _service(engine.sources.run), _service(engine.delivery.run):
                try:
                    yield
                finally:
                    await drain(engine)
        finally:
            with anyio.CancelScope(shield=True):
                await _release(engine)
            services.cancel_scope.cancel()


@asynccontextmanager
async def _service(run: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Start the task ``run``, execute the block after the task has reported its start, then cancel the task."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(run)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def _end_when_lost(cluster: Cluster) -> None:
    await cluster.lost()
    raise MembershipLost


async def _end_when_damaged(engine: EngineParts) -> None:
    """Raise DataDirectoryUnusable when accepted work has ended, or its time, after damage has ended the intake."""
    problem, settings = await engine.storage.damaged(), engine.settings.storage
    log.error("no new work is accepted, and the engine stops when accepted work has ended", problem=problem)
    with anyio.move_on_after(settings.drain):
        await _drained(engine)
    raise DataDirectoryUnusable(str(settings.path), problem)


async def _drained(engine: EngineParts) -> None:
    """Return when no asynchronous work and no delivery runs or may start, or an end could not be stored."""
    quiet = 0
    while quiet < 2 and not engine.storage.statistics().unstored:
        await anyio.sleep(DRAIN_LOOK)
        queue, deliveries = engine.scheduler.statistics(), engine.delivery.statistics()
        runs = queue.running > queue.running_sync or deliveries.under_way or engine.scheduler.possible_work()
        quiet = 0 if runs else quiet + 1


async def _unreadable(path: Path, problem: str) -> DataDirectoryUnusable:
    """Return the error for a page that was not read. After a read that failed once, it may seem damaged."""
    damage = await anyio.to_thread.run_sync(damaged_page, path)
    if damage or problem.startswith("Could not decode"):
        return DataDirectoryUnusable(str(path), f"{damage or 'a row is damaged'} ({problem}); {recover(path)}")
    return DiskFailing(str(path), f"cannot be read: {problem}; look for disk errors, then start the engine again")


async def _recover(engine: EngineParts) -> None:
    """Load functions, versions, aliases and backlog, as the previous engine stored them, before new work is accepted.

    Invocations that were running return to WAIT. Those that were running in too many crashes of the engine end as FAIL.
    """
    try:
        await engine.function_tokens.load()
        await engine.clock_guard.load()
        await engine.resources.load()
        engine.versions.load()
        await engine.aliases.load()
        await engine.controls.load()
        await engine.usage_store.load()
        await engine.sessions.load(engine.authenticator.principals if engine.authenticator else None)
        await engine.status_log.load()
        recovery = await engine.storage.journal.recover()
    except PageDamaged as damage:
        raise await _unreadable(engine.settings.storage.path, damage.problem) from damage
    except Unavailable as problem:
        advice = "free some space or look for disk errors, then start the engine again"
        raise DiskFailing(str(engine.settings.storage.path), f"cannot be written: {problem}; {advice}") from problem
    except StoredDataUnreadable as problem:
        raise DataDirectoryUnusable(str(engine.settings.storage.path), str(problem)) from problem

    for function_id in {function.function_id for function in engine.catalog.all()}:
        latest = engine.catalog.resolve(function_id, LATEST)
        engine.projects.follow(function_id, latest)
        engine.function_changes.configure(function_id, latest)
    engine.backlog.load(recovery.backlog)
    engine.scheduler.recover(recovery)
    for function_id in engine.backlog.functions:
        if engine.catalog.resolve(function_id, LATEST) is None:  # deleted, but not discarded by the previous engine
            engine.discarder.discard(function_id)
    engine.dispatcher.fail_poisoned(recovery.poisoned)
    log.info("recovered", waiting=engine.backlog.rows, revived=recovery.revived, functions=len(recovery.waiting))


async def drain(engine: EngineParts, max_wait: anyio.CancelScope | None = None) -> None:
    """Stop accepting requests, then wait up to the grace period for running attempts and pre-stop handlers.

    A caller that cancels ``max_wait`` ends the grace period at once. Further calls of ``drain`` return at once.
    """
    if _STOPPING in engine.scheduler.held:
        return
    engine.intake.close()
    engine.scheduler.hold(_STOPPING)
    if engine.storage.broken:
        return  # outcomes cannot be stored
    max_wait = max_wait or anyio.CancelScope()
    max_wait.shield, max_wait.deadline = True, anyio.current_time() + engine.settings.grace
    with max_wait:
        await engine.dispatcher.drain()
        await engine.pool.drain()


async def _release(engine: EngineParts) -> None:
    """Return unfinished asynchronous invocations to WAIT, so that the next engine runs them. Log failed writes."""
    if engine.storage.broken:
        return
    try:
        await engine.dispatcher.release()
    except Unavailable as problem:  # the next engine recovers the invocations, as after a crash
        log.warning("unfinished work not returned to WAIT", problem=str(problem))
