"""LTS, the log service: lines that clients send, or that functions write to their log, call functions in batches."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.lts.options import LtsOptions, LtsSettings, refuse
from plugins.lts.service import LtsService
from plugins.lts.source import LtsTrigger, example

plugin = Plugin(
    kinds=("LTS",),
    service=LtsSettings,
    serve=LtsService,
    options=LtsOptions,
    trigger=LtsTrigger,
    rules=TriggerRules(vendor=True, limited=True, unique=("log_group_id", "log_topic_id"), refuse=refuse),
    example=example,
    display=TriggerDisplay(
        about={"LTS": "Lines of a log stream."},
        subject=lambda options: f"{options.log_group_id} / {options.log_topic_id}",
    ),
)
