"""EventGrid: each event of a channel calls a function, asynchronously."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.eventgrid.cloudevents import example
from plugins.eventgrid.options import EventGridOptions, subject
from plugins.eventgrid.source import EventGridService, EventGridTrigger

plugin = Plugin(
    kinds=("EVENTGRID",),
    serve=EventGridService,
    options=EventGridOptions,
    trigger=EventGridTrigger,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        start_before_stop=True,
        unique=("channel_id", "source_name", "trigger_name"),
        on_registered=EventGridService.subscribed,
    ),
    example=example,
    display=TriggerDisplay(about={"EVENTGRID": "CloudEvents of a channel."}, subject=subject),
)
