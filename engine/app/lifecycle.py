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
from engine.app.parts import EngineParts, memory_budget
from engine.app.signals import connect
from engine.asgi.tls import ServerTls
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
from engine.logs.feed import LogBoard
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

if TYPE_CHECKING:
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
    registry, board = Registry(plugins, settings.plugins), LogBoard()
    with locked(data_dir), _tracing(settings.telemetry) as tracer:
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
        yield Tracer(exporter, settings.sampling)


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
    data_dir, executor, http = settings.storage.path, settings.executor, settings.http
    sandbox = convert(executor, IsolationOptions, from_attributes=True)
    return PoolOptions(
        tmp=data_dir / "tmp",
        log_dir=data_dir / "logs",
        marker=marker,
        region=settings.http.region,
        memory=memory_budget(settings),
        idle=executor.idle,
        processes=executor.processes,
        term_grace=executor.term_grace,
        access=FunctionAccess(f"http://127.0.0.1:{port}", tokens.token_of) if port else None,
        log_size=executor.log_size,
        log_space=settings.storage.logs_size,
        nodes=_nodes_options(settings, port) if executor.nodes.listen else None,
        sandbox=replace(
            sandbox, network=network, projects=settings.auth.projects, api_ports={http.port: port, port: port}
        ),
    )


def _nodes_options(settings: Settings, port: int) -> NodesOptions:
    from engine.executors.nodes.options import NodesOptions  # not loaded without nodes

    api_ports = tuple(sorted({settings.http.port, port} - {0})) if port else ()
    more = {"version": __version__, "folder": settings.storage.path / "nodes", "api_ports": api_ports, "api": port}
