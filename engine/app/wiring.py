"""Construction of an engine's components from its settings and from resources that are already open."""

from __future__ import annotations

from collections.abc import Sequence

from engine.app.parts import EngineParts, Infrastructure
from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import SignatureVerifier
from engine.code.quota import CodeQuota
from engine.config.settings import QueueSettings, RetrySettings, Settings
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.function_rules import FunctionRules, listed
from engine.functions.versions import Versions
from engine.http.auth import Authenticator
from engine.http.console import paths as console_paths
from engine.isolation.machine import usable_memory
from engine.maintenance.discarder import Discarder
from engine.maintenance.disk_guard import DiskGuard
from engine.maintenance.pruner import Pruner, Retention
from engine.metrics.usage import Usage
from engine.model.retry import RetryPolicy, Rules
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.function_changes import FunctionChanges
from engine.pipeline.intake import Intake
from engine.pipeline.redrive import Redrive
from engine.protocols import Settlement
from engine.protocols.audit import AuditTrail
from engine.resources.dependencies import DependencyRepository
from engine.resources.facade import ResourceOptions, Resources
from engine.resources.usage_store import UsageStore
from engine.scheduling.backlog import Backlog, Limits
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.triggers.callers import PluginAuthenticator
from engine.triggers.enabled_functions import EnabledFunctions
from engine.triggers.guarded_store import GuardedStore
from engine.triggers.ingress import IngressDeps
from engine.triggers.plugin_contexts import PluginContexts
from engine.triggers.sources import Sources


def wire(infrastructure: Infrastructure) -> EngineParts:
    """Construct the components of an engine without starting any."""
    settings, clock, storage, pool = (
        infrastructure.settings,
        infrastructure.clock,
        infrastructure.storage,
        infrastructure.pool,
    )
    executor = settings.executor
    dependencies = DependencyRepository(storage.resources)
    catalog = _catalog(infrastructure, dependencies)
    usage = Usage(catalog.project_of)
    queue = RunQueue(slots=executor.slots, sync_slots=executor.sync_slots, memory=memory_budget(settings))
    scheduler = Scheduler(queue, storage.journal, clock)
    backlog, policy, pruner = Backlog(_limits(settings.queue)), _policy(settings.retry), _pruner(infrastructure)
    audit = AuditTrail()
    disk = DiskGuard(storage.path, settings.storage.free_space, clock, on_low=pruner.run_now)
    intake = _intake(infrastructure, catalog, scheduler, backlog, usage, disk)
    failures = AuthThrottle(clock, limit=settings.auth.failures, window=settings.auth.failure_window)
    authenticator = _authenticator(infrastructure, failures)
    callers = PluginAuthenticator(SignatureVerifier(clock, failures), authenticator)
    plugins = _plugins(infrastructure, disk, callers, audit)
    delivery = _delivery(infrastructure, catalog, intake, backlog, policy, plugins)
    dispatcher = _dispatcher(infrastructure, catalog, scheduler, backlog, policy, usage, pruner, delivery)
    resources = _resources(infrastructure, catalog, dependencies)
    bound_to = resources.triggers.bound_to
    discarder = _discarder(infrastructure, scheduler, backlog, pruner, dispatcher)
    enabled = EnabledFunctions(catalog)
    ingress = IngressDeps(
        intake=intake,
        cursors=storage.cursors,
        backlog=backlog,
        identity=storage.identity,
        dispatcher=dispatcher,
        enabled=enabled,
    )
    engine = EngineParts(
        settings=settings,
        clock=clock,
        storage=storage,
        pool=pool,
        codes=infrastructure.codes,
        catalog=catalog,
        versions=Versions(catalog, storage.catalog, infrastructure.codes, clock, storage.identity, bound_to),
        aliases=Aliases(catalog, storage.resources, clock, bound_to),
        resources=resources,
        usage=usage,
        usage_store=UsageStore(usage, storage.resources),
        backlog=backlog,
        scheduler=scheduler,
        intake=intake,
        dispatcher=dispatcher,
        delivery=delivery,
        plugins=plugins,
        sources=Sources(resources.triggers, plugins, ingress, clock, policy),
        redrive=_redrive(infrastructure, catalog, intake, delivery),
        pruner=pruner,
        discarder=discarder,
        function_changes=FunctionChanges(catalog, scheduler, discarder, pool),
        audit=audit,
        logs=infrastructure.board,
        authenticator=authenticator,
    )
    _connect(engine, enabled)
    return engine


def _connect(engine: EngineParts, enabled: EnabledFunctions) -> None:
    """Connect the signals of all components. Functions that are connected to one signal are called in this order."""
    engine.catalog.changed.connect(engine.resources.triggers.follow)
    engine.catalog.changed.connect(engine.resources.follow)
    engine.catalog.changed.connect(engine.function_changes.apply)
    engine.catalog.changed.connect(enabled.follow)
    engine.resources.triggers.changed.connect(engine.sources.follow)
    engine.scheduler.pushed_to_closed.connect(engine.discarder.enqueue)
    engine.usage.used.connect(engine.usage_store.note_use)
    engine.pool.reserve.lost.connect(engine.resources.reservations.replace_lost)


def _catalog(infrastructure: Infrastructure, dependencies: DependencyRepository) -> Catalog:
    settings = infrastructure.settings
    quota = CodeQuota(settings.storage.code_quota)
    catalog = Catalog(
        infrastructure.storage.catalog,
        infrastructure.codes,
        infrastructure.clock,
        region=settings.http.region,
        rules=FunctionRules(
            max_timeout=settings.executor.max_timeout,
            may_run_long=listed(settings.executor.long_time_functions),
            check_destination=infrastructure.registry.check_destination,
            check_runtime=infrastructure.pool.check_runtime,
        ),
        quota=quota,
        find_dependencies=dependencies.named,
    )
    quota.count(catalog.packages_of)
    quota.count(dependencies.packages_of)
    return catalog


def _pruner(infrastructure: Infrastructure) -> Pruner:
    storage = infrastructure.settings.storage
    retention = Retention(age=storage.retention, rows=storage.retention_rows, size=storage.retention_size)
    return Pruner(
        records=infrastructure.storage.records,
        logs=infrastructure.pool.files,
        clock=infrastructure.clock,
        retention=retention,
    )


def _intake(
    infrastructure: Infrastructure,
    catalog: Catalog,
    scheduler: Scheduler,
    backlog: Backlog,
    usage: Usage,
    disk: DiskGuard,
) -> Intake:
    settings, clock, storage = infrastructure.settings, infrastructure.clock, infrastructure.storage
    return Intake(
        catalog=catalog,
        journal=storage.journal,
        cursors=storage.cursors,
        scheduler=scheduler,
        backlog=backlog,
        identity=storage.identity,
        clock=clock,
        disk=disk,
        priority_step=settings.queue.priority_step,
        sync_timeout=settings.http.sync_timeout,
        on_overload=lambda urn: usage.note_reject(catalog.id_of(urn), clock.now()),
    )


def _authenticator(infrastructure: Infrastructure, failures: AuthThrottle) -> Authenticator | None:
    """Return the authenticator of requests; None if no credentials are configured.

    Without credentials, validated settings let the engine listen on a loopback address only.
    """
    auth, http = infrastructure.settings.auth, infrastructure.settings.http
    if not auth.required:
        return None
    figures = ("/readyz", "/metrics") if auth.open_metrics else ()
    pages = console_paths.OPEN if http.console else ()
    return Authenticator(
        auth.keys,
        auth.tokens,
        clock=infrastructure.clock,
        failures=failures,
        body_limits={b"invocations-async": http.async_body_limit, b"invocations": http.sync_body_limit},
        open_paths=("/healthz", *figures, *pages),
    )


def _plugins(
    infrastructure: Infrastructure, disk: DiskGuard, callers: PluginAuthenticator, audit: AuditTrail
) -> PluginContexts:
    settings, storage = infrastructure.settings, infrastructure.storage
    return PluginContexts(
        infrastructure.registry,
        lambda table: GuardedStore(storage.store(table), disk),
        infrastructure.clock,
        region=settings.http.region,
        callers=callers,
        audit=audit,
        logs=infrastructure.board,
    )


def _delivery(
    infrastructure: Infrastructure,
    catalog: Catalog,
    intake: Intake,
    backlog: Backlog,
    policy: RetryPolicy,
    plugins: PluginContexts,
) -> DeliveryWorker:
    return DeliveryWorker(
        outbox=infrastructure.storage.outbox,
        records=infrastructure.storage.records,
        registry=infrastructure.registry,
        catalog=catalog,
        intake=intake,
        backlog=backlog,
        clock=infrastructure.clock,
        policy=policy,
        region=infrastructure.settings.http.region,
        plugins=plugins.context_for,
        largest=infrastructure.settings.http.async_body_limit,
    )


def _dispatcher(
    infrastructure: Infrastructure,
    catalog: Catalog,
    scheduler: Scheduler,
    backlog: Backlog,
    policy: RetryPolicy,
    usage: Usage,
    pruner: Pruner,
    delivery: DeliveryWorker,
) -> Dispatcher:
    def on_end(settlement: Settlement) -> None:
        pruner.note_end()
        if settlement.deliver_to is not None:
            delivery.wake()

    return Dispatcher(
        scheduler=scheduler,
        journal=infrastructure.storage.journal,
        records=infrastructure.storage.records,
        executor=infrastructure.pool,
        catalog=catalog,
        backlog=backlog,
        clock=infrastructure.clock,
        policy=policy,
        slots=infrastructure.settings.executor.slots,
        priority_step=infrastructure.settings.queue.priority_step,
        on_end=on_end,
        on_attempt=usage.note,
    )


def _discarder(
    infrastructure: Infrastructure, scheduler: Scheduler, backlog: Backlog, pruner: Pruner, dispatcher: Dispatcher
) -> Discarder:
    def on_discard(keys: Sequence[int]) -> None:
        pruner.note_end()
        dispatcher.note_discarded(keys)

    return Discarder(infrastructure.storage.journal, scheduler, backlog, infrastructure.clock, on_discard)


def _redrive(infrastructure: Infrastructure, catalog: Catalog, intake: Intake, delivery: DeliveryWorker) -> Redrive:
    return Redrive(
        outbox=infrastructure.storage.outbox,
        records=infrastructure.storage.records,
        intake=intake,
        catalog=catalog,
        identity=infrastructure.storage.identity,
        clock=infrastructure.clock,
        region=infrastructure.settings.http.region,
        deliveries=delivery,
    )


def _resources(infrastructure: Infrastructure, catalog: Catalog, dependencies: DependencyRepository) -> Resources:
    settings = infrastructure.settings
    return Resources(
        infrastructure.storage.resources,
        catalog,
        infrastructure.codes,
        infrastructure.clock,
        dependencies=dependencies,
        registry=infrastructure.registry,
        warmer=infrastructure.pool,
        options=ResourceOptions(
            memory=memory_budget(settings),
            region=settings.http.region,
            free_modes=frozenset({"TIMER"} if settings.triggers.timer_sync_execution else ()),
        ),
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
    """Return the memory in MiB that all instances may use together.

    The setting ``executor.memory`` is returned; if it is 0, 3/4 of the memory that this process may use.
    """
    return settings.executor.memory or (usable_memory() >> 20) * 3 // 4
