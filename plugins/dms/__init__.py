"""DMS, the vendor's retired queue service. Its triggers are stored, but call no function: the plugin has no source."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.dms.options import DmsOptions, subject

plugin = Plugin(
    kinds=("DMS",),
    options=DmsOptions,
    rules=TriggerRules(vendor=True, unique=("queue_id", "consumer_group_id")),
    display=TriggerDisplay(
        about={"DMS": "The vendor's retired queue service: the trigger is stored, and calls nothing."}, subject=subject
    ),
)
