"""LTS, the log service: log lines that call a function in batches."""

from __future__ import annotations

from msgspec import Struct

from engine import Plugin, TriggerRules
from plugins.fields import Text


class LtsOptions(Struct, frozen=True, kw_only=True):
    log_group_id: Text
    log_topic_id: Text


plugin = Plugin(
    kinds=("LTS",),
    options=LtsOptions,
    rules=TriggerRules(vendor=True, pulls=True, unique=("log_group_id", "log_topic_id")),
)
