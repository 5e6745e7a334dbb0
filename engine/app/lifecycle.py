"""The engine: its nesting is the lifecycle of the parts that ``wiring`` puts together.

    data directory locked → its journal checked → storage open → writer runs → leftovers of a dead engine killed
      → pool open → what it left in the journal recovered → scheduler, dispatcher, janitor run
      → sources, delivery run → doors open

Leaving goes the other way: intake refuses, running work drains within the grace period, the rest goes back to WAIT,
the journal closes last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import convert

from engine.app.wiring import EngineParts as EngineParts
from engine.app.wiring import Infrastructure, memory_budget, wire
from engine.code.store import CodeStore
from engine.code.unpacking import Limits
from engine.config.plugin_registry import Registry
from engine.config.settings import Settings
from engine.errors import DataDirectoryUnusable, Unavailable
from engine.executors.pool import open_pool
from engine.executors.sandbox import IsolationOptions
from engine.functions.catalog import weight
from engine.functions.function_rules import request_limit
from engine.logs.feed import LogBoard
from engine.model import Function
from engine.model.clock import Clock, SystemClock
from engine.model.urn import LATEST
from engine.protocols import Plugin
from engine.runtimes.interpreters import Interpreters
from engine.scheduling.pressure import watch_pressure
from engine.storage.sqlite import Storage, locked, open_storage

log = structlog.get_logger("functiond")

_STOPPING = "shutting down"


@asynccontextmanager
async def run_engine(
    settings: Settings, *, plugins: Iterable[Plugin] = (), clock: Clock | None = None
) -> AsyncIterator[EngineParts]:
    """Run an engine on its data directory while the block is entered.

    Raises SettingsError, DataDirectoryLocked and DataDirectoryUnusable; and JournalBroken out of the block, when only
    a new start can tell what is on disk.
    """
    clock = clock or SystemClock()
    index, kept, executor = Path(settings.storage.data_dir), settings.storage, settings.executor
    retention = settings.queue.idempotency_retention
    registry, board = Registry(plugins, settings.plugins), LogBoard()
    with locked(index):
        codes = CodeStore(index / "code", Limits(keep_free=kept.free_space), registry.code_links)
        async with (
            open_storage(
                index,
                idempotency_retention=retention,
                ballast=kept.ballast,
                packages_of=await codes.mark(),
            ) as storage,
            _writing(storage),
            open_pool(
                code_path=codes.folder,
                tmp=index / "tmp",
                log_dir=index / "logs",
                marker=storage.marker,
                memory=memory_budget(settings),
                idle=executor.idle,
                log_size=executor.log_size,
                log_space=kept.logs_size,
                board=board,
                processes=executor.processes,
                region=settings.http.region,
                clock=clock,
                interpreters=Interpreters(python=executor.python, node=executor.node),
                sandbox=convert(executor, IsolationOptions, from_attributes=True),
            ) as pool,
        ):
            codes.belong_to(storage.identity.name)
            infrastructure = Infrastructure(
                settings=settings, clock=clock, storage=storage, pool=pool, codes=codes, registry=registry, board=board
            )
            running = wire(infrastructure)
            async with _services(running):
                yield running


@asynccontextmanager
async def _writing(storage: Storage) -> AsyncIterator[None]:
    """The journal's writer runs, and ends when all that was submitted is on disk."""
    async with anyio.create_task_group() as tasks:
        # Not ``await start``: cancelled there, it would wait for a writer that ends by ``close`` only.
        tasks.start_soon(storage.writer.run)
        try:
            yield
        finally:
            storage.writer.close()


@asynccontextmanager
async def _services(running: EngineParts) -> AsyncIterator[None]:
    async with anyio.create_task_group() as services:
        await _recover(running, services)
        await services.start(running.scheduler.run)
        await services.start(running.discarder.run)
        await services.start(running.pruner.run)
        await services.start(running.resources.reservations.run)
        await services.start(running.usage_store.run)
        if running.settings.queue.host_idle_gate:
            await services.start(watch_pressure, running.scheduler)
        try:
            # Delivery within the sources: what goes to a topic of our own is lost on triggers that do not listen.
            async with _going(running.dispatcher.run), _going(running.sources.run), _going(running.delivery.run):
                try:
                    yield
                finally:
                    await drain(running)
        finally:
            with anyio.CancelScope(shield=True):
                await _release(running)
            services.cancel_scope.cancel()


@asynccontextmanager
async def _going(run: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """A service runs while the block is entered."""
    async with anyio.create_task_group() as tasks:
        await tasks.start(run)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()


async def _recover(running: EngineParts, services: TaskGroup) -> None:
    """Take up what the last engine left: what was running waits again, before anything new is accepted."""
    try:
        await running.resources.load()
        running.versions.load()
        await running.aliases.load()
        await running.usage_store.load()
        recovery = await running.storage.journal.recover()
    except Unavailable as problem:
        raise DataDirectoryUnusable(str(running.storage.path), f"cannot be written: {problem}") from problem

    def apply(function_id: int, function: Function | None) -> None:
        if function is None:  # synchronous calls that still wait pass through, and hear of it
            running.scheduler.configure(function_id, weight=1.0, limit=-1, memory=0)
            running.discarder.discard(function_id)
        else:
            running.scheduler.configure(
                function_id,
                weight=weight(function),
                limit=request_limit(function, shared_port=running.pool.http_network == "shared"),
                memory=function.memory_size,
                concurrent_requests=function.concurrent_num,
            )
        kept = {version.revision for version in running.catalog.versions(function_id)}
        services.start_soon(running.pool.retire, function_id, kept)

    for function_id in {function.function_id for function in running.catalog.all()}:
        apply(function_id, running.catalog.resolve(function_id, LATEST))
    running.catalog.watch(apply)
    running.backlog.load(recovery.backlog)
    running.scheduler.recover(recovery)
    for function_id in running.backlog.functions:
        if running.catalog.resolve(function_id, LATEST) is None:  # the last engine did not come to it
            running.discarder.discard(function_id)
    running.dispatcher.fail_poisoned(recovery.poisoned)
    log.info("recovered", waiting=running.backlog.rows, revived=recovery.revived, functions=len(recovery.waiting))


async def drain(running: EngineParts, max_wait: anyio.CancelScope | None = None) -> None:
    """Doors first; then what runs may end within the grace period, and instances say their last words. Once is enough.

    Cancelling ``max_wait`` ends the grace period at once.
    """
    if _STOPPING in running.scheduler.held:
        return  # the grace period is granted once
    running.intake.close()
    running.scheduler.hold(_STOPPING)
    if running.storage.writer.broken:
        return  # no end of a run could be stored
    max_wait = max_wait or anyio.CancelScope()
    max_wait.shield, max_wait.deadline = True, anyio.current_time() + running.settings.grace
    with max_wait:
        await running.dispatcher.drain()
        await running.pool.drain()


async def _release(running: EngineParts) -> None:
    """What still runs waits for the next engine."""
    if running.storage.writer.broken:
        return
    try:
        await running.dispatcher.release()
    except Unavailable as problem:  # the next engine finds them running, as after a death of this one
        log.warning("running work not put back", problem=str(problem))
