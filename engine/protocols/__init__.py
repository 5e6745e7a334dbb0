"""Protocols between the parts of the engine, and between engine and plugins."""

from engine.protocols.audit import (
    Audit,
    AuditTrail,
    Listener,
    Trace,
)
from engine.protocols.catalog import (
    CatalogStore,
    ResourceStore,
    StoredResource,
)
from engine.protocols.cursors import (
    CursorMove,
    Cursors,
)
from engine.protocols.execution import (
    Executor,
)
from engine.protocols.journal import (
    Discarded,
    Journal,
    Page,
    Recovery,
    Settlement,
    WaitingEnd,
    Window,
)
from engine.protocols.operation import (
    JSON,
    Operation,
)
from engine.protocols.outbox import (
    DeliveryCount,
    DeliveryFilter,
    Outbox,
)
from engine.protocols.plugins import (
    CodeLinks,
    DeliveryContext,
    Destination,
    Plugin,
    TriggerRules,
    Undeliverable,
)
from engine.protocols.records import (
    FIRST,
    LAST_KEY,
    Count,
    Found,
    Place,
    Purged,
    Queued,
    Records,
    Scan,
    Selection,
    Standing,
)
from engine.protocols.status_log import (
    StatusEntry,
    StatusLog,
    StatusLogStatistics,
    StatusTarget,
)
from engine.protocols.storage import (
    Cluster,
    CopySteps,
    Damage,
    Storage,
    StorageStatistics,
)
from engine.protocols.triggers import (
    EVENT_LIMIT,
    Callers,
    Event,
    EventSink,
    PluginContext,
    PluginService,
    PushHandler,
    PushRequest,
    Routes,
    Store,
    Trigger,
    TriggerContext,
)

__all__ = [
    "EVENT_LIMIT",
    "FIRST",
    "JSON",
    "LAST_KEY",
    "Audit",
    "AuditTrail",
    "Callers",
    "CatalogStore",
    "Cluster",
    "CodeLinks",
    "CopySteps",
    "Count",
    "CursorMove",
    "Cursors",
    "Damage",
    "DeliveryContext",
    "DeliveryCount",
    "DeliveryFilter",
    "Destination",
    "Discarded",
    "Event",
    "EventSink",
    "Executor",
    "Found",
    "Journal",
    "Listener",
    "Operation",
    "Outbox",
    "Page",
    "Place",
    "Plugin",
    "PluginContext",
    "PluginService",
    "Purged",
    "PushHandler",
    "PushRequest",
    "Queued",
    "Records",
    "Recovery",
    "ResourceStore",
    "Routes",
    "Scan",
    "Selection",
    "Settlement",
    "Standing",
    "StatusEntry",
    "StatusLog",
    "StatusLogStatistics",
    "StatusTarget",
    "Storage",
    "StorageStatistics",
    "Store",
    "StoredResource",
    "Trace",
    "Trigger",
    "TriggerContext",
    "TriggerRules",
    "Undeliverable",
    "WaitingEnd",
    "Window",
]
