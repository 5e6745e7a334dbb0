"""functiond: durable asynchronous function engine. Accepts requests at once, runs them when executors are idle.

Plugins may import only the names in this module.
"""

from functiond.configuration import not_strict
from functiond.signing import sign as sign_request

from engine.asgi.egress import is_public
from engine.asgi.error_replies import delay_of, hold_back, retry_after, status_of
from engine.asgi.forwarded import FORWARDED, Forwarded
from engine.asgi.ignored_fields import IgnoredFields, find_ignored
from engine.asgi.wire import (
    CONSOLE_COOKIES,
    TARGET,
    ClientDisconnect,
    HeaderPairs,
    Headers,
    ReadBody,
    Receive,
    Reply,
    Scope,
    Send,
    read_body,
    respond,
)
from engine.auth.roles import Role
from engine.errors import (
    BadLink,
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
    StoredDataUnreadable,
    StoreRefused,
    StoreUnavailable,
    Unauthorized,
    Unavailable,
)
from engine.logs.feed import FunctionLines, StatusLines, WriteRows
from engine.logs.target import LogTarget, log_target_of, project_log_target
from engine.model import (
    Code,
    ContentKey,
    Mode,
    Outcome,
    PendingDelivery,
    Request,
)
from engine.model.clock import Clock
from engine.model.cron import Cron, read_cron
from engine.model.quotas import Quotas
from engine.model.urn import parse_urn
from engine.protocols import (
    EVENT_LIMIT,
    Callers,
    CodeLinks,
    DeliveryContext,
    Event,
    EventSink,
    Operation,
    Plugin,
    PluginContext,
    PushRequest,
    Rest,
    Store,
    TriggerContext,
    TriggerDisplay,
    TriggerRules,
    Undeliverable,
)
from engine.protocols.audit import Trace
from engine.protocols.cursors import SourceIdentity

__version__ = "0.1.0"

__all__ = [
    "CONSOLE_COOKIES",
    "EVENT_LIMIT",
    "FORWARDED",
    "TARGET",
    "BadLink",
    "Callers",
    "ClientDisconnect",
    "Clock",
    "Code",
    "CodeLinks",
    "ContentKey",
    "Cron",
    "DeliveryContext",
    "Event",
    "EventSink",
    "Forbidden",
    "Forwarded",
    "FunctionDisabled",
    "FunctionLines",
    "FunctiondError",
    "HeaderPairs",
    "Headers",
    "IdempotencyConflict",
    "IgnoredFields",
    "InvalidField",
    "LogTarget",
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
    "PushRequest",
    "Quotas",
    "ReadBody",
    "Receive",
    "Reply",
    "Request",
    "Rest",
    "Role",
    "Scope",
    "Send",
    "SettingsError",
    "SourceIdentity",
    "StatusLines",
    "Store",
    "StoreRefused",
    "StoreUnavailable",
    "StoredDataUnreadable",
    "Trace",
    "TriggerContext",
    "TriggerDisplay",
    "TriggerRules",
    "Unauthorized",
    "Unavailable",
    "Undeliverable",
    "WriteRows",
    "delay_of",
    "find_ignored",
    "hold_back",
    "is_public",
    "log_target_of",
    "not_strict",
    "parse_urn",
    "project_log_target",
    "read_body",
    "read_cron",
    "respond",
    "retry_after",
    "sign_request",
    "status_of",
]
