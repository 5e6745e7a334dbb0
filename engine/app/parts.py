"""Construction of an engine from its settings and its open resources. ``engine.app.signals`` connects its parts."""

from __future__ import annotations

import socket
import sys
from functools import partial

from msgspec import convert

from engine.app.connections import connection_rules
from engine.asgi.egress import Egress
from engine.asgi.peers import tells_uids
from engine.asgi.tls import ServerTls
from engine.auth.throttle import AuthThrottle
from engine.auth.verifier import SignatureVerifier
from engine.code.quota import CodeQuota
from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry
from engine.config.settings import Settings
from engine.executors.pool import Pool
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import FunctionRules, listed
from engine.functions.versions import Versions
from engine.http.api.deliveries import DeliveriesApi
from engine.http.api.triggers import TriggersApi
from engine.http.auth import Authenticator
from engine.http.console import paths as console_paths
from engine.http.console.session.sessions import STORE as SESSIONS
from engine.http.console.session.sessions import Sessions
from engine.http.function_tokens import FunctionAuthenticator, FunctionTokens
from engine.isolation.machine import usable_memory
from engine.logs.feed import LogBoard
from engine.maintenance.clock_guard import DAY, ClockGuard
from engine.maintenance.clock_guard import STORE as CLOCK
from engine.maintenance.pruner import Pruner, Retention
from engine.metrics.function_metrics import FunctionMetrics
from engine.metrics.loop_lag import LoopLag, LoopWatch
from engine.metrics.progress import Progress
from engine.metrics.spans import Tracer
from engine.metrics.usage import Usage
from engine.model.clock import Clock
from engine.model.retry import RetryPolicy, Rules
from engine.model.urn import LATEST
from engine.pipeline.calls import CallIntake
from engine.pipeline.delivery import DeliveryWorker, Destinations, trace_of_request
from engine.pipeline.delivery_records import DeliveryRecords
from engine.pipeline.discarder import Discarder
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.explanation import Explainer
from engine.pipeline.failed_deliveries import FailedDeliveries
from engine.pipeline.function_changes import FunctionChanges
from engine.pipeline.groups import Groups
from engine.pipeline.intake import Intake, InvocationFactory
from engine.pipeline.redrive import Redrive
from engine.pipeline.settling import DispatchOptions, Ends
from engine.pipeline.status_log import StatusLogWorker
from engine.protocols import Storage
from engine.protocols.audit import AuditTrail
from engine.resources.dependencies import DependencyRepository
from engine.resources.facade import ResourceOptions, Resources
from engine.resources.usage_store import SAMPLES, UsageStore
from engine.scheduling.backlog import Backlog, DiskGuard, Limits
from engine.scheduling.projects import Projects
from engine.scheduling.runqueue import RunQueue
from engine.scheduling.scheduler import Scheduler
from engine.triggers.context import EnabledFunctions, IngressDeps
from engine.triggers.plugin_contexts import GuardedStore, PluginAuthenticator, PluginContexts
from engine.triggers.routes import NetworkOptions
from engine.triggers.sources import Sources


class EngineParts:
    """Components of an engine, for its lifecycle, its HTTP API, and programs that run an engine inside themselves.

    The constructor starts none of them. Without ``tracer``, no spans are made; without ``tls``, the listeners of the
    API and of plugins have no TLS.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        storage: Storage,
        pool: Pool,
        codes: CodeStore,
        registry: Registry,
        board: LogBoard,
        function_sockets: list[socket.socket],
        function_tokens: FunctionTokens,
        tls: ServerTls | None,
        tracer: Tracer | None = None,
    ) -> None:
        self.settings, self.clock, self.storage, self.pool, self.codes = settings, clock, storage, pool, codes
        self.registry, self.logs, self.tls, self.tracer = registry, board, tls, tracer
        region, executor, policy = settings.http.region, settings.executor, _policy(settings)
        self.audit, self.lag = AuditTrail(), LoopLag()
        slots, memory = (
            (executor.nodes.slots, 0) if executor.nodes.listen else (executor.slots, memory_budget(settings))
        )

        # Functions and their resources
        dependencies = DependencyRepository(storage.resources, settings.shared_dependencies)
        self.catalog = Catalog(
            storage.catalog,
            codes,
            clock,
            region=region,
            rules=FunctionRules(
                max_timeout=executor.max_timeout,
                may_run_long=listed(executor.long_time_functions),
                folders=executor.folders,
                check_destination=lambda spec, function: self.resources.triggers.check_destination(spec, function),
                check_runtime=pool.check_runtime,
                limits=settings.limits,
            ),
            quota=CodeQuota(settings.storage.code_quota),
            find_dependencies=dependencies.named,
        )
        self.catalog.quota.count(self.catalog.packages_of)
        self.catalog.quota.count(dependencies.packages_of)
        self.controls = FunctionControls(self.catalog, storage.resources)
        self.resources = Resources(
            storage.resources,
            self.catalog,
            codes,
            clock,
            dependencies=dependencies,
            registry=registry,
            instances=pool,
            options=ResourceOptions(
                memory=memory,
                region=region,
                free_modes=frozenset({"TIMER"} if settings.triggers.timer_sync_execution else ()),
            ),
        )
        triggers = self.resources.triggers
        self.versions = Versions(self.catalog, storage.catalog, codes, clock, storage.identity, triggers.bound_to)
        self.aliases = Aliases(self.catalog, storage.resources, clock, triggers.bound_to)

        # From a request to its queue
        self.authenticator, verifier = _authenticators(settings, clock)
        tenants = self.authenticator is not None and self.authenticator.principals.several
        self.projects = Projects(named=tenants, other_slots=executor.other_slots)
        retention = Retention(
            age=settings.storage.retention, rows=settings.storage.retention_rows, size=settings.storage.retention_size
        )
        self.pruner = Pruner(records=storage.records, logs=pool.files, clock=clock, retention=retention)
        disk = DiskGuard(settings.storage.path, settings.storage.free_space, clock, on_low=self.pruner.run_now)
        self.backlog = Backlog(convert(settings.queue, Limits, from_attributes=True), disk.check, self.projects)
        queue = RunQueue(
            slots=slots, sync_slots=executor.sync_slots, memory=memory or sys.maxsize, projects=self.projects
        )
        self.scheduler = Scheduler(queue, storage.window, clock)
        factory = InvocationFactory(storage.identity, clock, settings.queue.priority_step)
        self.intake = Intake(
            catalog=self.catalog,
            journal=storage.journal,
            cursors=storage.cursors,
            scheduler=self.scheduler,
            backlog=self.backlog,
            factory=factory,
            sync_timeout=settings.http.sync_timeout,
        )
        self.call_intake = CallIntake(
            self.intake, factory, storage.identity, self.backlog, storage.calls, settings.queue.depth
        )

        # Callers, plugins and their destinations
        self.function_sockets, self.function_tokens = function_sockets, function_tokens
        principal_of = partial(function_tokens.principal_of, function_of=pool.function_of)
        self.function_authenticator = FunctionAuthenticator(principal_of, verifier, self.authenticator)
        reach_api = self.authenticator is None and pool.walls["network"].startswith("host")
        #: the API needs no credentials, but connections of functions are told from others
        self.tells_functions = reach_api and bool(pool.function_uids) and tells_uids()
        is_closed = self.tells_functions or not reach_api
        self.function_api = "token" if is_closed else "open"  #: need of functions to use the whole API
        self.connections = connection_rules(settings)
        self.sessions = Sessions(storage.store(SESSIONS), clock)
        self.plugins = PluginContexts(
            registry,
            lambda table: GuardedStore(storage.store(table), disk),
            clock,
            triggers=triggers,
            callers=PluginAuthenticator(verifier, self.authenticator),
            audit=self.audit,
            logs=board,
            network=NetworkOptions(
                lag=self.lag,
                rules=self.connections.gateway,
                tls=tls,
                egress=Egress(settings.egress.allow, active=bool(settings.egress.allow or settings.auth.required)),
            ),
        )
        trace_of = tracer.trace_of_delivery if tracer is not None else trace_of_request
        self.delivery = DeliveryWorker(
            outbox=storage.outbox,
            records=storage.records,
            destinations=Destinations(registry, self.plugins.context_for, trace_of),
            delivery_records=DeliveryRecords(self.catalog, region, settings.http.async_body_limit),
            intake=self.intake,
            clock=clock,
            policy=policy,
        )

        # From the queue to the end, and sources of further requests
        self.ends = Ends(storage.records, self.pruner, self.delivery)
        self.dispatcher = Dispatcher(
            scheduler=self.scheduler,
            storage=storage,
            executor=pool,
            catalog=self.catalog,
            backlog=self.backlog,
            clock=clock,
            ends=self.ends,
            options=DispatchOptions(
                slots=slots,
                priority_step=settings.queue.priority_step,
                retry=policy,
                trace_of=tracer.trace_of_attempt if tracer is not None else None,
            ),
        )
        self.discarder = Discarder(
            scheduler=self.scheduler,
            storage=storage,
            cancellation=self.dispatcher.cancellation,
            catalog=self.catalog,
            policy=policy,
            clock=clock,
        )
        self.groups = Groups(
            calls=storage.calls,
            cancellation=self.dispatcher.cancellation,
            catalog=self.catalog,
            backlog=self.backlog,
            clock=clock,
            identity=storage.identity,
            limit=settings.http.async_body_limit,
            priority_step=settings.queue.priority_step,
        )
        self.function_changes = FunctionChanges(
            self.catalog, self.controls, self.scheduler, self.discarder, pool, storage.journal
        )
        self.status_log = StatusLogWorker(storage.status_log, self.catalog, board, disk, region)
        self.enabled = EnabledFunctions(self.catalog)
        ingress = IngressDeps(
            intake=self.intake,
            cursors=storage.cursors,
            backlog=self.backlog,
            identity=storage.identity,
            dispatcher=self.dispatcher,
            enabled=self.enabled,
            lag=self.lag,
        )
        self.sources = Sources(triggers, self.plugins, ingress, storage.cluster, clock, policy)
        self.redrive = Redrive(storage.records, self.intake, self.catalog, storage.identity, region)
        self.clock_guard = ClockGuard(
            clock=clock,
            records=storage.records,
            store=storage.store(CLOCK),
            tolerance=settings.storage.clock_tolerance * DAY,
        )

        # Parts that the API and the console share
        self.explainer = Explainer(storage.records, storage.calls, self.scheduler, clock, storage.identity)
        self.failed_deliveries = failed = FailedDeliveries(storage.outbox, self.catalog, self.delivery, clock)
        self.deliveries_api = DeliveriesApi(failed, self.delivery, self.catalog, storage.identity, region)
        self.triggers_api = TriggersApi(triggers, self.sources, self.plugins, storage.cursors)

        # Figures
        self.loop_watch, self.progress = LoopWatch(self.lag, settings.health.stall), Progress()
        self.usage = Usage(clock, self.backlog, self.catalog.project_of)
        self.usage_store = UsageStore(self.usage, storage.store(SAMPLES), storage.resources)
        self.function_metrics: FunctionMetrics | None = None  #: None: metrics by function are off
        if settings.telemetry.functions:
            self.function_metrics = FunctionMetrics(
                lambda function_id: self.catalog.resolve(function_id, LATEST), settings.telemetry.functions
            )


def _authenticators(settings: Settings, clock: Clock) -> tuple[Authenticator | None, SignatureVerifier]:
    """Return the authenticator of API requests (None if no credentials are configured), and the verifier of others.

    Without credentials, validated settings let the engine listen on a loopback address only.
    """
    auth, http, authenticator = settings.auth, settings.http, None
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
            spool=settings.storage.path / "code",
        )
    return authenticator, SignatureVerifier(clock, failures)


def _policy(settings: Settings) -> RetryPolicy:
    retry = settings.retry
    return RetryPolicy(
        base=retry.base,
        factor=retry.factor,
        longest=retry.longest,
        jitter=retry.jitter,
        max_losses=settings.executor.nodes.max_losses,
        default=Rules(retries=retry.default_retries, max_age=retry.default_max_age or float("inf")),
    )


def memory_budget(settings: Settings) -> int:
    """Return the memory in MiB that all instances may use together.

    The setting ``executor.memory`` is returned; if it is 0, 3/4 of the memory that this process may use.
    """
    return settings.executor.memory or (usable_memory() >> 20) * 3 // 4
