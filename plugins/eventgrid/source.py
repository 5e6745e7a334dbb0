"""The source of EVENTGRID: a CloudEvents endpoint for each channel, which hands events to all triggers of it.

``POST /triggers/eventgrid/<channel_id>`` needs the engine's own credentials, where it has any. An event that comes
again, by its source and id, is not accepted twice; so a sender may repeat a batch that was taken in part only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import anyio
import msgspec
from anyio.abc import TaskStatus

from engine import Event, NotFound, PluginContext, PushReply, PushRequest, TriggerContext
from plugins.eventgrid.cloudevents import CloudEvent, read_events
from plugins.eventgrid.options import EventGridOptions
from plugins.pushing import accept_each

#: What the grid adds where a sender left it off (spec triggers_runtime, 1.12).
_COMMON = {"datacontenttype": "application/json", "dataschema": "", "subject": ""}


class EventGridTrigger:
    def __init__(self, options: EventGridOptions) -> None:
        self.options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        with context.plugin.service.subscribed(self, context):
            task_status.started()
            await anyio.sleep_forever()

    def wants(self, event: CloudEvent) -> bool:
        options, (bucket, key) = self.options, _object_of(event)
        return (
            (not options.event_types or event["type"] in options.event_types)
            and options.source_name in ("", event["source"])
            and options.bucket in ("", bucket)
            and key.startswith(options.prefix)
            and key.endswith(options.suffix)
        )

    def event(self, told: CloudEvent, trigger_id: str) -> Event:
        """An event that comes again calls the function once."""
        key, whole = f"eventgrid:{trigger_id}:{told['source']}:{told['id']}", {**_COMMON, **told}
        payload = msgspec.json.encode(_encoded(whole) if self.options.encode_key else whole)
        return Event(payload=payload, idempotency_key=key)


class EventGridService:
    """The endpoint, and who listens to which channel."""

    def __init__(self, settings: None) -> None:
        self._subscribers: dict[str, tuple[EventGridTrigger, TriggerContext]] = {}

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.routes.mount("", self._answer, signed=True):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def subscribed(self, trigger: EventGridTrigger, context: TriggerContext) -> Iterator[None]:
        mine = self._subscribers[context.trigger_id] = (trigger, context)
        try:
            yield
        finally:
            if self._subscribers.get(context.trigger_id) is mine:  # else its successor's
                del self._subscribers[context.trigger_id]

    async def _answer(self, request: PushRequest) -> PushReply:
        if request.method != "POST":
            return PushReply(status=405, headers=((b"allow", b"POST"),))
        channel = request.path.removeprefix("/")
        listening = [
            (trigger, context)
            for trigger, context in self._subscribers.values()
            if trigger.options.channel_id == channel and request.project in ("", context.project)
        ]
        if not listening:
            raise NotFound(f"no trigger listens to the channel {channel[:100]!r}")
        accepted = await accept_each(
            (context, trigger.event(event, context.trigger_id))
            for event in read_events(request)
            for trigger, context in listening
            if trigger.wants(event)
        )
        return PushReply(status=202, body=msgspec.json.encode({"accepted": accepted}))


def _object_of(event: CloudEvent) -> tuple[str, str]:
    """Bucket and key of an object that an event is about; of any other event nothing, and its subject."""
    match event:
        case {"data": {"obs": {"bucket": {"name": str(bucket)}, "object": {"key": str(key)}}}}:
            return bucket, key
    subject = event.get("subject")
    return "", subject if isinstance(subject, str) else ""


def _encoded(event: CloudEvent) -> CloudEvent:
    """With the object's key percent-encoded, where the event has one."""
    match event:
        case {"data": {"obs": {"object": {"key": str(key)}}}}:
            data: dict[str, Any] = event["data"]
            obs = {**data["obs"], "object": {**data["obs"]["object"], "key": quote(key, safe="")}}
            return {**event, "data": {**data, "obs": obs}}
    return event
