"""CTS, the audit service: each operation on the project's resources, recorded as a trace, calls a function."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.cts.options import CtsOptions
from plugins.cts.source import CtsService, CtsTrigger
from plugins.cts.traces import example

plugin = Plugin(
    kinds=("CTS",),
    serve=CtsService,
    options=CtsOptions,
    trigger=CtsTrigger,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        start_before_stop=True,
        limited=True,
        conflicts=lambda mine, other, same_function: mine.name == other.name,  # names are unique in the project
        on_registered=CtsService.subscribed,
    ),
    example=example,
    display=TriggerDisplay(
        about={"CTS": "Operations on the project's functions, triggers, topics and streams."},
        subject=lambda options: ", ".join(options.operations),
    ),
)
