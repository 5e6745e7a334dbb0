"""functiond: a durable asynchronous function engine. Accept now, run when idle.

What is exported here is all that a plugin may use.
"""

from engine.audit import Audit, Trace
from engine.auth.signing import sign as sign_request
from engine.clock import Clock
from engine.cron import Cron, read_cron
from engine.errors import (
    CallTimedOut,
    Forbidden,
    FunctiondError,
    FunctionDisabled,
    IdempotencyConflict,
    InvalidField,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    SettingsError,
    Unauthorized,
    Unavailable,
)
from engine.log_feed import FunctionLines, LogFeed
from engine.log_lines import Line
from engine.log_target import LogTarget, log_target_of, project_log_target
from engine.model import (
    Code,
    DestinationSpec,
    Function,
    Invocation,
    Mode,
    Outcome,
    Owed,
    Record,
    Request,
    State,
)
from engine.operation import Operation
from engine.protocols import (
    CodeLinks,
    DeliveryContext,
    Destination,
    Plugin,
    TriggerRules,
    Undeliverable,
)
from engine.store_errors import BadLink, ObjectMissing, StoreRefused, StoreUnavailable
from engine.trigger_errors import CursorMoved
from engine.trigger_seams import (
    WHOLE_REPLY,
    AsgiApp,
    Callers,
    Event,
    PluginContext,
    PluginService,
    PushHandler,
    PushReply,
    PushRequest,
    Routes,
    Store,
    Trigger,
    TriggerContext,
    TriggerDoor,
)
from engine.urn import FunctionUrn, parse_urn

__version__ = "0.1.0"

__all__ = [
    "WHOLE_REPLY",
    "AsgiApp",
    "Audit",
    "BadLink",
    "CallTimedOut",
    "Callers",
    "Clock",
    "Code",
    "CodeLinks",
    "Cron",
    "CursorMoved",
    "DeliveryContext",
    "Destination",
    "DestinationSpec",
    "Event",
    "Forbidden",
    "Function",
    "FunctionDisabled",
    "FunctionLines",
    "FunctionUrn",
    "FunctiondError",
    "IdempotencyConflict",
    "InvalidField",
    "Invocation",
    "Line",
    "LogFeed",
    "LogTarget",
    "Mode",
    "NotFound",
    "ObjectMissing",
    "Operation",
    "Outcome",
    "Overloaded",
    "Owed",
    "PayloadTooLarge",
    "Plugin",
    "PluginContext",
    "PluginService",
    "PushHandler",
    "PushReply",
    "PushRequest",
    "Record",
    "Request",
    "Routes",
    "SettingsError",
    "State",
    "Store",
    "StoreRefused",
    "StoreUnavailable",
    "Trace",
    "Trigger",
    "TriggerContext",
    "TriggerDoor",
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
