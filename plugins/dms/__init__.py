"""DMS, the vendor's retired queue service. Its triggers are stored, but call no function: the plugin has no source."""

from __future__ import annotations

from engine import Plugin, TriggerRules
from plugins.dms.options import DmsOptions

plugin = Plugin(
    kinds=("DMS",),
    options=DmsOptions,
    rules=TriggerRules(vendor=True, unique=("queue_id", "consumer_group_id")),
)
