"""SMN, the message service: topics that call a function for each notification."""

from __future__ import annotations

from msgspec import Struct

from engine import Plugin, TriggerRules
from plugins.fields import Text


class SmnOptions(Struct, frozen=True, kw_only=True):
    topic_urn: Text


plugin = Plugin(
    kinds=("SMN",),
    options=SmnOptions,
    rules=TriggerRules(vendor=True, may_disable=False, unique=("topic_urn",)),
)
