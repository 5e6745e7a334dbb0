"""DIS, the stream service: records of a stream call functions, and outcomes are sent as records."""

from __future__ import annotations

from engine import Plugin, TriggerDisplay, TriggerRules
from plugins.dis.destination import DisDestination, DisParam
from plugins.dis.events import example
from plugins.dis.options import DisOptions, DisSettings
from plugins.dis.service import DisService
from plugins.dis.source import DisTrigger

plugin = Plugin(
    kinds=("DIS",),
    service=DisSettings,
    serve=DisService,
    options=DisOptions,
    trigger=DisTrigger,
    param=DisParam,
    destination=DisDestination,
    uses=lambda settings, given: {"": settings.projects} if settings.endpoint else {},
    unknown=lambda context, param, project: "" if context.service.has(project, param.stream_name) else "stream_name",
    loops=lambda settings, options, param: bool(settings.endpoint) and options.stream_name == param.stream_name,
    rules=TriggerRules(vendor=True, may_disable=False, limited=True, unique=("stream_name",)),
    example=example,
    display=TriggerDisplay(about={"DIS": "Records of a data stream."}, subject=lambda options: options.stream_name),
)
