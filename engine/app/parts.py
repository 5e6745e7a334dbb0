"""Parts of an engine: resources that are open before construction, and components that are constructed."""

from __future__ import annotations

from msgspec import Struct

from engine.app.connections import ConnectionRules
from engine.asgi.tls import ServerTls
from engine.code.store import CodeStore
from engine.config.plugin_registry import Registry
from engine.config.settings import Settings
from engine.executors.pool import Pool
from engine.functions.aliases import Aliases
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.versions import Versions
from engine.http.auth import Authenticator
from engine.http.console.session.sessions import Sessions
from engine.logs.feed import LogBoard
from engine.maintenance.clock_guard import ClockGuard
from engine.maintenance.pruner import Pruner
from engine.metrics.function_metrics import FunctionMetrics
from engine.metrics.loop_lag import LoopLag
from engine.metrics.loop_watch import LoopWatch
from engine.metrics.progress import Progress
from engine.metrics.samples import Samples
from engine.metrics.spans import Tracer
from engine.metrics.usage import Usage
from engine.model.clock import Clock
from engine.pipeline.delivery import DeliveryWorker
from engine.pipeline.discarder import Discarder
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.function_changes import FunctionChanges
from engine.pipeline.intake import Intake
from engine.pipeline.paused_expiry import PausedExpiry
from engine.pipeline.redrive import Redrive
from engine.pipeline.status_log import StatusLogWorker
from engine.protocols import Storage
from engine.protocols.audit import AuditTrail
from engine.resources.facade import Resources
from engine.resources.sample_store import SampleStore
from engine.resources.usage_store import UsageStore
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler
from engine.triggers.plugin_contexts import PluginContexts
from engine.triggers.sources import Sources


class EngineParts(Struct, frozen=True, kw_only=True):
    """Components of an engine, for its lifecycle, its HTTP API, and programs that run an engine inside themselves."""

    settings: Settings
    clock: Clock
    storage: Storage
    pool: Pool
    codes: CodeStore
    catalog: Catalog
    versions: Versions
    aliases: Aliases
    controls: FunctionControls
    resources: Resources
    tracer: Tracer | None  #: None: no spans are made
    function_metrics: FunctionMetrics | None  #: None: metrics by function are off
    usage: Usage
    usage_store: UsageStore
    samples: Samples
    sample_store: SampleStore
    lag: LoopLag
    loop_watch: LoopWatch
    progress: Progress
    backlog: Backlog
    scheduler: Scheduler
    intake: Intake
    dispatcher: Dispatcher
    delivery: DeliveryWorker
    status_log: StatusLogWorker
    registry: Registry
    plugins: PluginContexts
    sources: Sources
    redrive: Redrive
    pruner: Pruner
    discarder: Discarder
    paused_expiry: PausedExpiry
    clock_guard: ClockGuard
    function_changes: FunctionChanges
    audit: AuditTrail
    logs: LogBoard
    connections: ConnectionRules
    authenticator: Authenticator | None  #: None: requests need no credentials
    sessions: Sessions  #: of the console
    tls: ServerTls | None  #: of the API's listener and those of plugins; None: without TLS


class Infrastructure(Struct, frozen=True, kw_only=True):
    """Settings and open resources from which ``wire`` constructs the other components."""

    settings: Settings
    clock: Clock
    storage: Storage
    pool: Pool
    codes: CodeStore
    registry: Registry
    board: LogBoard
    tls: ServerTls | None
    tracer: Tracer | None = None  #: None: no spans are made
