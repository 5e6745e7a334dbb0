"""Construction of an engine: its components. ``engine.app.signals`` connects them."""

from __future__ import annotations

from msgspec import Struct

from engine.app import function_figures, tracing
from engine.app.connections import ConnectionRules, connection_rules
from engine.app.parts import EngineParts, Infrastructure
from engine.app.signals import connect
from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import SignatureVerifier
from engine.code.quota import CodeQuota
from engine.config.settings import QueueSettings, RetrySettings, Settings
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import FunctionRules, listed
from engine.functions.versions import Versions
from engine.http.auth import Authenticator
from engine.http.console import paths as console_paths
from engine.http.console.session.sessions import STORE as SESSIONS
from engine.http.console.session.sessions import Sessions
from engine.isolation.machine import usable_memory
from engine.maintenance.clock_guard import DAY, STORE, ClockGuard
from engine.maintenance.disk_guard import DiskGuard
from engine.maintenance.pruner import Pruner, Retention
from engine.metrics.function_metrics import FunctionMetrics
from engine.metrics.loop_lag import LoopLag
from engine.metrics.loop_watch import LoopWatch
from engine.metrics.progress import Progress
from engine.metrics.samples import Samples
from engine.metrics.usage import Usage
from engine.model.retry import RetryPolicy, Rules
from engine.model.urn import LATEST
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.delivery_records import DeliveryRecords
from engine.pipeline.destinations import Destinations, trace_of_request
from engine.pipeline.discarder import Discarder
from engine.pipeline.dispatcher import Dispatcher, DispatchOptions
from engine.pipeline.function_changes import FunctionChanges
from engine.pipeline.intake import Intake
from engine.pipeline.invocation_factory import InvocationFactory
from engine.pipeline.paused_expiry import PausedExpiry
from engine.pipeline.redrive import Redrive
from engine.pipeline.status_log import StatusLogWorker
from engine.protocols.audit import AuditTrail
from engine.resources.dependencies import DependencyRepository
from engine.resources.facade import ResourceOptions, Resources
from engine.resources.sample_store import STORE as SAMPLES
from engine.resources.sample_store import SampleStore
from engine.resources.usage_store import UsageStore
from engine.scheduling.backlog import Backlog, Limits
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.triggers.context import EnabledFunctions, IngressDeps
from engine.triggers.plugin_contexts import GuardedStore, PluginAuthenticator, PluginContexts
from engine.triggers.routes import ListenOptions
from engine.triggers.sources import Sources


class _Core(Struct, frozen=True, kw_only=True):
    """Components that many others use, with the resources that they were constructed from."""

    given: Infrastructure
    catalog: Catalog
    resources: Resources
    backlog: Backlog
    scheduler: Scheduler
    policy: RetryPolicy
    pruner: Pruner
    disk: DiskGuard
    lag: LoopLag


def wire(infrastructure: Infrastructure) -> EngineParts:
    """Construct the components of an engine without starting any."""
    clock, storage, core, audit = infrastructure.clock, infrastructure.storage, _core(infrastructure), AuditTrail()
    catalog, triggers = core.catalog, core.resources.triggers
    samples = Samples(clock, core.backlog)
    usage, intake, enabled = Usage(catalog.project_of), _intake(core), EnabledFunctions(catalog)
    authenticator, callers = _authenticators(infrastructure)
    connections = connection_rules(infrastructure.settings)
    plugins = _plugins(core, callers, audit, connections)
    delivery, dispatcher = _delivery(core, intake, plugins), _dispatcher(core)
    discarder = Discarder(storage.records, core.scheduler, dispatcher.bulk_cancellation, clock)
    controls = FunctionControls(catalog, storage.resources)
    engine = EngineParts(
        settings=infrastructure.settings,
        clock=clock,
        storage=storage,
        pool=infrastructure.pool,
        codes=infrastructure.codes,
        catalog=catalog,
        versions=Versions(catalog, storage.catalog, infrastructure.codes, clock, storage.identity, triggers.bound_to),
        aliases=Aliases(catalog, storage.resources, clock, triggers.bound_to),
        controls=controls,
        resources=core.resources,
        tracer=infrastructure.tracer,
        function_metrics=_function_metrics(core),
        usage=usage,
        usage_store=UsageStore(usage, storage.resources),
        samples=samples,
        sample_store=SampleStore(samples, storage.store(SAMPLES)),
        lag=core.lag,
        loop_watch=LoopWatch(core.lag, infrastructure.settings.health.stall),
        progress=Progress(),
        backlog=core.backlog,
        scheduler=core.scheduler,
        intake=intake,
        dispatcher=dispatcher,
        delivery=delivery,
        status_log=_status_log(core),
        registry=infrastructure.registry,
        plugins=plugins,
        sources=_sources(core, plugins, _ingress_deps(core, intake, dispatcher, enabled)),
        redrive=_redrive(core, intake, delivery),
        pruner=core.pruner,
        discarder=discarder,
        paused_expiry=_paused_expiry(core, dispatcher),
        clock_guard=_clock_guard(infrastructure),
        function_changes=FunctionChanges(catalog, controls, core.scheduler, discarder, infrastructure.pool),
        audit=audit,
        logs=infrastructure.board,
        connections=connections,
        authenticator=authenticator,
        sessions=Sessions(storage.store(SESSIONS), clock),
        tls=infrastructure.tls,
    )
    connect(engine, enabled)
    if engine.function_metrics is not None:
        function_figures.connect(engine.function_metrics, engine)
    if engine.tracer is not None:
        tracing.connect(engine.tracer, engine)
    return engine


def _core(given: Infrastructure) -> _Core:
    settings, clock, storage, executor = given.settings, given.clock, given.storage, given.settings.executor
    dependencies = DependencyRepository(storage.resources, settings.shared_dependencies)
    catalog, pruner = _catalog(given, dependencies), _pruner(given)
    queue = RunQueue(slots=executor.slots, sync_slots=executor.sync_slots, memory=memory_budget(settings))
    return _Core(
        given=given,
        catalog=catalog,
        resources=_resources(given, catalog, dependencies),
        backlog=Backlog(_limits(settings.queue)),
        scheduler=Scheduler(queue, storage.window, clock),
        policy=_policy(settings.retry),
        pruner=pruner,
        disk=DiskGuard(settings.storage.path, settings.storage.free_space, clock, on_low=pruner.run_now),
        lag=LoopLag(),
    )


def _catalog(given: Infrastructure, dependencies: DependencyRepository) -> Catalog:
    settings = given.settings
    quota = CodeQuota(settings.storage.code_quota)
    catalog = Catalog(
        given.storage.catalog,
        given.codes,
        given.clock,
        region=settings.http.region,
        rules=FunctionRules(
            max_timeout=settings.executor.max_timeout,
            may_run_long=listed(settings.executor.long_time_functions),
            check_destination=given.registry.check_destination,
            check_runtime=given.pool.check_runtime,
        ),
        quota=quota,
        find_dependencies=dependencies.named,
    )
    quota.count(catalog.packages_of)
    quota.count(dependencies.packages_of)
    return catalog


def _resources(given: Infrastructure, catalog: Catalog, dependencies: DependencyRepository) -> Resources:
    settings = given.settings
    return Resources(
        given.storage.resources,
        catalog,
        given.codes,
        given.clock,
        dependencies=dependencies,
        registry=given.registry,
        instances=given.pool,
        options=ResourceOptions(
            memory=memory_budget(settings),
            region=settings.http.region,
            free_modes=frozenset({"TIMER"} if settings.triggers.timer_sync_execution else ()),
        ),
    )


def _pruner(given: Infrastructure) -> Pruner:
    storage = given.settings.storage
    retention = Retention(age=storage.retention, rows=storage.retention_rows, size=storage.retention_size)
    return Pruner(records=given.storage.records, logs=given.pool.files, clock=given.clock, retention=retention)


def _function_metrics(core: _Core) -> FunctionMetrics | None:
    limit = core.given.settings.telemetry.functions
    return FunctionMetrics(lambda function_id: core.catalog.resolve(function_id, LATEST), limit) if limit else None


def _clock_guard(given: Infrastructure) -> ClockGuard:
    return ClockGuard(
        clock=given.clock,
        records=given.storage.records,
        store=given.storage.store(STORE),
        tolerance=given.settings.storage.clock_tolerance * DAY,
    )


def _intake(core: _Core) -> Intake:
    settings, storage = core.given.settings, core.given.storage
    return Intake(
        catalog=core.catalog,
        journal=storage.journal,
        cursors=storage.cursors,
        scheduler=core.scheduler,
        backlog=core.backlog,
        factory=InvocationFactory(storage.identity, core.given.clock, settings.queue.priority_step),
        disk=core.disk,
        sync_timeout=settings.http.sync_timeout,
    )


def _authenticators(given: Infrastructure) -> tuple[Authenticator | None, PluginAuthenticator]:
    """Return the authenticator of API requests (None if no credentials are configured), and that of all plugins.

    Without credentials, validated settings let the engine listen on a loopback address only.
    """
    auth, http, clock, authenticator = given.settings.auth, given.settings.http, given.clock, None
    failures = AuthThrottle(clock, limit=auth.failures, window=auth.failure_window)
    if auth.required:
        figures = ("/metrics",) if auth.open_metrics else ()
        authenticator = Authenticator(
            auth.keys,
            auth.tokens,
            clock=clock,
            failures=failures,
            body_limits={b"invocations-async": http.async_body_limit, b"invocations": http.sync_body_limit},
            open_paths=console_paths.OPEN if http.console else (),
            bare_paths=("/healthz", "/readyz", *figures),
            spool=given.settings.storage.path / "code",
        )
    return authenticator, PluginAuthenticator(SignatureVerifier(clock, failures), authenticator)


def _plugins(
    core: _Core, callers: PluginAuthenticator, audit: AuditTrail, connections: ConnectionRules
) -> PluginContexts:
    given = core.given
    return PluginContexts(
        given.registry,
        lambda table: GuardedStore(given.storage.store(table), core.disk),
        given.clock,
        region=given.settings.http.region,
        callers=callers,
        audit=audit,
        logs=given.board,
        listening=ListenOptions(lag=core.lag, rules=connections.gateway, tls=given.tls),
    )


def _sources(core: _Core, plugins: PluginContexts, deps: IngressDeps) -> Sources:
    storage, clock = core.given.storage, core.given.clock
    return Sources(core.resources.triggers, plugins, deps, storage.cluster, clock, core.policy)


def _ingress_deps(core: _Core, intake: Intake, dispatcher: Dispatcher, enabled: EnabledFunctions) -> IngressDeps:
    return IngressDeps(
        intake=intake,
        cursors=core.given.storage.cursors,
        backlog=core.backlog,
        identity=core.given.storage.identity,
        dispatcher=dispatcher,
        enabled=enabled,
        lag=core.lag,
    )


def _delivery(core: _Core, intake: Intake, plugins: PluginContexts) -> DeliveryWorker:
    storage, http, tracer = core.given.storage, core.given.settings.http, core.given.tracer
    trace_of = tracer.trace_of_delivery if tracer is not None else trace_of_request
    return DeliveryWorker(
        outbox=storage.outbox,
        records=storage.records,
        destinations=Destinations(core.given.registry, plugins.context_for, trace_of),
        delivery_records=DeliveryRecords(core.catalog, http.region, http.async_body_limit),
        intake=intake,
        clock=core.given.clock,
        policy=core.policy,
    )


def _status_log(core: _Core) -> StatusLogWorker:
    given = core.given
    return StatusLogWorker(given.storage.status_log, core.catalog, given.board, core.disk, given.settings.http.region)


def _dispatcher(core: _Core) -> Dispatcher:
    storage, settings, tracer = core.given.storage, core.given.settings, core.given.tracer
    options = DispatchOptions(
        slots=settings.executor.slots,
        priority_step=settings.queue.priority_step,
        retry=core.policy,
        trace_of=tracer.trace_of_attempt if tracer is not None else None,
    )
    return Dispatcher(
        scheduler=core.scheduler,
        journal=storage.journal,
        records=storage.records,
        executor=core.given.pool,
        catalog=core.catalog,
        backlog=core.backlog,
        clock=core.given.clock,
        options=options,
    )


def _paused_expiry(core: _Core, dispatcher: Dispatcher) -> PausedExpiry:
    return PausedExpiry(
        scheduler=core.scheduler,
        window=core.given.storage.window,
        bulk=dispatcher.bulk_cancellation,
        catalog=core.catalog,
        policy=core.policy,
        clock=core.given.clock,
    )


def _redrive(core: _Core, intake: Intake, delivery: DeliveryWorker) -> Redrive:
    storage = core.given.storage
    return Redrive(
        outbox=storage.outbox,
        records=storage.records,
        intake=intake,
        catalog=core.catalog,
        identity=storage.identity,
        clock=core.given.clock,
        region=core.given.settings.http.region,
        deliveries=delivery,
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
