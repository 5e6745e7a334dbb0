"""functiond: durable asynchronous function engine. Accepts requests at once, runs them when executors are idle.

Plugins may import only the names in this module.
"""

from engine.auth.signing import sign as sign_request
from engine.errors import (
    BadLink,
    CallTimedOut,
    Forbidden,
    FunctiondError,
    FunctionDisabled,
    IdempotencyConflict,
    InvalidField,
    NotFound,
    ObjectMissing,
    Overloaded,
    PayloadTooLarge,
    SettingsError,
    StoreRefused,
    StoreUnavailable,
    Unauthorized,
    Unavailable,
)
from engine.logs.feed import FunctionLines
from engine.logs.target import log_target_of, project_log_target
from engine.model import (
    Code,
    Mode,
    Outcome,
    PendingDelivery,
    Request,
)
from engine.model.clock import Clock
from engine.model.cron import Cron, read_cron
from engine.model.urn import parse_urn
from engine.protocols import (
    WHOLE_REPLY,
    Callers,
    CodeLinks,
    DeliveryContext,
    Event,
    EventSink,
    Operation,
    Plugin,
    PluginContext,
    PushReply,
    PushRequest,
    Store,
    TriggerContext,
    TriggerRules,
    Undeliverable,
)
from engine.protocols.audit import Trace

__version__ = "0.1.0"

__all__ = [
    "WHOLE_REPLY",
    "BadLink",
    "CallTimedOut",
    "Callers",
    "Clock",
    "Code",
    "CodeLinks",
    "Cron",
    "DeliveryContext",
    "Event",
    "EventSink",
    "Forbidden",
    "FunctionDisabled",
    "FunctionLines",
    "FunctiondError",
    "IdempotencyConflict",
    "InvalidField",
    "Mode",
    "NotFound",
    "ObjectMissing",
    "Operation",
    "Outcome",
    "Overloaded",
    "PayloadTooLarge",
    "PendingDelivery",
    "Plugin",
    "PluginContext",
    "PushReply",
    "PushRequest",
    "Request",
    "SettingsError",
    "Store",
    "StoreRefused",
    "StoreUnavailable",
    "Trace",
    "TriggerContext",
    "TriggerRules",
    "Unauthorized",
    "Unavailable",
    "Undeliverable",
    "log_target_of",
    "parse_urn",
    "project_log_target",
    "read_cron",
    "sign_request",
]
