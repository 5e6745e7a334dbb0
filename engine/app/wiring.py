"""What an engine is made of, put together from its settings: plain construction, from the storage up.

Nothing runs yet when this returns; ``app`` has the order of that.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.auth.throttle import Failures
from engine.code.quota import CodeQuota
from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry
from engine.config.settings import QueueSettings, RetrySettings, Settings
from engine.executors.pool import Pool
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog, listed
from engine.functions.versions import Versions
from engine.isolation.machine import usable_memory
from engine.logs.feed import LogBoard
from engine.maintenance.discarder import Discarder
from engine.maintenance.disk_guard import DiskGuard
from engine.maintenance.pruner import Janitor, Retention
from engine.metrics.usage import Usage
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy, Rules
from engine.pipeline.delivery import Delivery
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.intake import Intake
from engine.pipeline.redrive import Redrive
from engine.protocols import Settlement
from engine.protocols.audit import AuditTrail
from engine.resources.facade import Resources
from engine.resources.usage_store import Months
from engine.scheduling.backlog import Backlog, Limits
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.storage.sqlite import Storage
from engine.triggers.guarded_store import GuardedStore
from engine.triggers.plugin_contexts import AllParts
from engine.triggers.sources import Sources


class Running(Struct, frozen=True, kw_only=True):
    """The parts of an engine that runs, for the edges to use."""

    settings: Settings
    clock: Clock
    storage: Storage
    pool: Pool
    codes: CodeStore
    catalog: Catalog
    versions: Versions
    aliases: Aliases
    resources: Resources
    usage: Usage
    months: Months
    backlog: Backlog
    scheduler: Scheduler
    intake: Intake
    dispatcher: Dispatcher
    delivery: Delivery
    plugins: AllParts
    sources: Sources
    redrive: Redrive
    janitor: Janitor
    discarder: Discarder
    audit: AuditTrail
    logs: LogBoard
    failures: Failures


class Ground(Struct, frozen=True, kw_only=True):
    """What is open before the parts are made."""

    settings: Settings
    clock: Clock
    storage: Storage
    pool: Pool
    codes: CodeStore
    registry: Registry
    board: LogBoard


def wire(ground: Ground) -> Running:
    settings, clock, storage, pool = ground.settings, ground.clock, ground.storage, ground.pool
    executor = settings.executor
    catalog = _catalog(ground)
    usage = Usage(catalog.project_of)
    queue = RunQueue(slots=executor.slots, sync_slots=executor.sync_slots, memory=memory_budget(settings))
    scheduler = Scheduler(queue, storage.journal, clock)
    backlog, policy, janitor = Backlog(_limits(settings.queue)), _policy(settings.retry), _janitor(ground)
    audit = AuditTrail()
    disk = DiskGuard(storage.path, settings.storage.free_space, clock, on_low=janitor.hurry)
    intake = _intake(ground, catalog, scheduler, backlog, usage, disk)
    failures = Failures(clock, limit=settings.auth.failures, window=settings.auth.failure_window)
    plugins = _plugins(ground, disk, failures, audit)
    delivery = _delivery(ground, catalog, intake, backlog, policy, plugins)
    dispatcher = _dispatcher(ground, catalog, scheduler, backlog, policy, usage, janitor, delivery)
    resources = _resources(ground, catalog)
    return Running(
        settings=settings,
        clock=clock,
        storage=storage,
        pool=pool,
        codes=ground.codes,
        catalog=catalog,
        versions=Versions(catalog, storage.catalog, ground.codes, clock, storage.identity),
        aliases=Aliases(catalog, storage.resources, clock),
        resources=resources,
        usage=usage,
        months=Months(usage, storage.resources),
        backlog=backlog,
        scheduler=scheduler,
        intake=intake,
        dispatcher=dispatcher,
        delivery=delivery,
        plugins=plugins,
        sources=_sources(ground, resources, plugins, catalog, intake, backlog, dispatcher, policy),
        redrive=_redrive(ground, catalog, intake, delivery),
        janitor=janitor,
        discarder=_discarder(ground, scheduler, backlog, janitor, dispatcher),
        audit=audit,
        logs=ground.board,
        failures=failures,
    )


def _catalog(ground: Ground) -> Catalog:
    settings = ground.settings
    return Catalog(
        ground.storage.catalog,
        ground.codes,
        ground.clock,
        region=settings.http.region,
        max_timeout=settings.executor.max_timeout,
        may_run_long=listed(settings.executor.long_time_functions),
        check_destination=ground.registry.check_destination,
        quota=CodeQuota(settings.storage.code_quota),
        check_runtime=ground.pool.interpreters.check,
    )


def _janitor(ground: Ground) -> Janitor:
    kept = ground.settings.storage
    retention = Retention(age=kept.retention, rows=kept.retention_rows, size=kept.retention_size)
    return Janitor(records=ground.storage.records, logs=ground.pool.files, clock=ground.clock, retention=retention)


def _intake(
    ground: Ground, catalog: Catalog, scheduler: Scheduler, backlog: Backlog, usage: Usage, disk: DiskGuard
) -> Intake:
    settings, clock, storage = ground.settings, ground.clock, ground.storage
    return Intake(
        catalog=catalog,
        journal=storage.journal,
        cursors=storage.cursors,
        scheduler=scheduler,
        backlog=backlog,
        identity=storage.identity,
        clock=clock,
        disk=disk,
        ageing=settings.queue.ageing,
        sync_timeout=settings.http.sync_timeout,
        on_overload=lambda urn: usage.note_reject(catalog.id_of(urn), clock.now()),
    )


def _plugins(ground: Ground, disk: DiskGuard, failures: Failures, audit: AuditTrail) -> AllParts:
    settings, storage = ground.settings, ground.storage
    return AllParts(
        ground.registry,
        lambda table: GuardedStore(storage.store(table), disk),
        ground.clock,
        region=settings.http.region,
        credentials=settings.auth.required,
        failures=failures,
        audit=audit,
        logs=ground.board,
    )


def _sources(
    ground: Ground,
    resources: Resources,
    plugins: AllParts,
    catalog: Catalog,
    intake: Intake,
    backlog: Backlog,
    dispatcher: Dispatcher,
    policy: RetryPolicy,
) -> Sources:
    return Sources(
        triggers=resources.triggers,
        parts=plugins,
        intake=intake,
        cursors=ground.storage.cursors,
        backlog=backlog,
        identity=ground.storage.identity,
        dispatcher=dispatcher,
        catalog=catalog,
        clock=ground.clock,
        policy=policy,
    )


def _delivery(
    ground: Ground, catalog: Catalog, intake: Intake, backlog: Backlog, policy: RetryPolicy, plugins: AllParts
) -> Delivery:
    return Delivery(
        outbox=ground.storage.outbox,
        records=ground.storage.records,
        registry=ground.registry,
        catalog=catalog,
        intake=intake,
        backlog=backlog,
        clock=ground.clock,
        policy=policy,
        region=ground.settings.http.region,
        plugins=plugins.speaking_for,
        largest=ground.settings.http.async_body_limit,
    )


def _dispatcher(
    ground: Ground,
    catalog: Catalog,
    scheduler: Scheduler,
    backlog: Backlog,
    policy: RetryPolicy,
    usage: Usage,
    janitor: Janitor,
    delivery: Delivery,
) -> Dispatcher:
    def on_end(settlement: Settlement) -> None:
        janitor.note_end()
        if settlement.owes is not None:
            delivery.wake()

    return Dispatcher(
        scheduler=scheduler,
        journal=ground.storage.journal,
        records=ground.storage.records,
        executor=ground.pool,
        catalog=catalog,
        backlog=backlog,
        clock=ground.clock,
        policy=policy,
        slots=ground.settings.executor.slots,
        ageing=ground.settings.queue.ageing,
        on_end=on_end,
        on_attempt=usage.note,
    )


def _discarder(
    ground: Ground, scheduler: Scheduler, backlog: Backlog, janitor: Janitor, dispatcher: Dispatcher
) -> Discarder:
    def on_discard(keys: Sequence[int]) -> None:
        janitor.note_end()
        dispatcher.note_discarded(keys)

    return Discarder(ground.storage.journal, scheduler, backlog, ground.clock, on_discard)


def _redrive(ground: Ground, catalog: Catalog, intake: Intake, delivery: Delivery) -> Redrive:
    return Redrive(
        outbox=ground.storage.outbox,
        records=ground.storage.records,
        intake=intake,
        catalog=catalog,
        identity=ground.storage.identity,
        clock=ground.clock,
        region=ground.settings.http.region,
        deliveries=delivery,
    )


def _resources(ground: Ground, catalog: Catalog) -> Resources:
    settings = ground.settings
    return Resources(
        ground.storage.resources,
        catalog,
        ground.codes,
        ground.clock,
        warmer=ground.pool,
        memory=memory_budget(settings),
        registry=ground.registry,
        region=settings.http.region,
        free_modes=frozenset({"TIMER"} if settings.triggers.timer_sync_execution else ()),
    )


def _limits(queue: QueueSettings) -> Limits:
    return Limits(
        rows=queue.rows,
        size=queue.size,
        function_rows=queue.function_rows,
        function_size=queue.function_size,
        sync_rows=queue.sync_rows,
        sync_size=queue.sync_size,
    )


def _policy(retry: RetrySettings) -> RetryPolicy:
    return RetryPolicy(
        base=retry.base,
        factor=retry.factor,
        longest=retry.longest,
        jitter=retry.jitter,
        default=Rules(retries=retry.default_retries, max_age=retry.default_max_age or float("inf")),
    )


def memory_budget(settings: Settings) -> int:
    """MB for all instances together."""
    return settings.executor.memory or (usable_memory() >> 20) * 3 // 4
