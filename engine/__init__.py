"""functiond: a durable asynchronous function engine. Accept now, run when idle.

What is exported here is all that a plugin may use.
"""

from engine.clock import Clock
from engine.cron import Cron, read_cron
from engine.errors import FunctiondError, InvalidField, Overloaded, SettingsError, Unavailable
from engine.model import (
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
from engine.protocols import (
    CodeLinks,
    DeliveryContext,
    Destination,
    Plugin,
    Trigger,
    TriggerContext,
    TriggerRules,
    Undeliverable,
)
from engine.store_errors import BadLink, ObjectMissing, StoreRefused, StoreUnavailable
from engine.urn import FunctionUrn, parse_urn

__version__ = "0.1.0"

__all__ = [
    "BadLink",
    "Clock",
    "CodeLinks",
    "Cron",
    "DeliveryContext",
    "Destination",
    "DestinationSpec",
    "Function",
    "FunctionUrn",
    "FunctiondError",
    "InvalidField",
    "Invocation",
    "Mode",
    "ObjectMissing",
    "Outcome",
    "Overloaded",
    "Owed",
    "Plugin",
    "Record",
    "Request",
    "SettingsError",
    "State",
    "StoreRefused",
    "StoreUnavailable",
    "Trigger",
    "TriggerContext",
    "TriggerRules",
    "Unavailable",
    "Undeliverable",
    "parse_urn",
    "read_cron",
]
