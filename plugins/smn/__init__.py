"""SMN, the message service: messages of a topic call functions, and outcomes are published as messages."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.smn.destination import SmnDestination, SmnParam
from plugins.smn.events import example
from plugins.smn.options import SmnOptions, SmnSettings
from plugins.smn.service import SmnService
from plugins.smn.source import SmnTrigger

plugin = Plugin(
    kinds=("SMN",),
    service=SmnSettings,
    serve=SmnService,
    options=SmnOptions,
    trigger=SmnTrigger,
    param=SmnParam,
    destination=SmnDestination,
    uses=lambda settings, given: {"": settings.projects} if settings.endpoint and isinstance(given, SmnParam) else {},
    unknown=lambda context, param, project: "" if context.service.has(project, param.topic_urn) else "topic_urn",
    loops=lambda settings, options, param: bool(settings.endpoint) and options.topic_urn == param.topic_urn,
    rules=TriggerRules(
        vendor=True,
        may_disable=False,
        start_before_stop=True,
        unique=("topic_urn",),
        has_path=True,
        subscription_status=SmnService.status,
        on_registered=SmnService.subscribed,
    ),
    example=example,
    display=TriggerDisplay(about={"SMN": "Messages of a topic."}, subject=lambda options: options.topic_urn),
)
