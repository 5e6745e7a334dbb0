"""EventGrid: each event of a channel calls a function, asynchronously or synchronously as the trigger's options say."""

from __future__ import annotations

from engine import Mode, Plugin, TriggerDisplay, TriggerRules
from plugins.eventgrid.cloudevents import example
from plugins.eventgrid.options import EventGridOptions, subject
from plugins.eventgrid.source import EventGridService, EventGridTrigger

plugin = Plugin(
    kinds=("EVENTGRID",),
    serve=EventGridService,
    options=EventGridOptions,
    trigger=EventGridTrigger,
    modes=frozenset({Mode.ASYNC, Mode.SYNC}),
    fixed_mode=False,
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
