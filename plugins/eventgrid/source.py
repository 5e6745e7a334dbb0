"""The source of EVENTGRID: a CloudEvents endpoint for each channel, which hands events to all triggers of it.

``POST /triggers/eventgrid/<channel_id>`` needs the engine's own credentials, where it has any. An event that comes
again, by its source and id, is not accepted twice; so a sender may repeat a batch that was taken in part only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import quote

import anyio
import msgspec
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import Event, EventSink, NotFound, PluginContext, PushReply, PushRequest, TriggerContext
from plugins._shared.push import accept_each, accepted_reply, push_operation
from plugins.eventgrid.cloudevents import CloudEvent, read_events
from plugins.eventgrid.options import EventGridOptions

PUSH = push_operation("EventGridPushEvents", "/triggers/eventgrid/{channel_id}")
#: What the grid adds where a sender left it off (spec triggers_runtime, 1.12).
_COMMON = {"datacontenttype": "application/json", "dataschema": "", "subject": ""}


class EventGridTrigger:
    """Nothing runs for it: events come to it from when it is stored."""

    def __init__(self, options: EventGridOptions) -> None: ...

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep_forever()


class Subscriber(Struct, frozen=True, kw_only=True, eq=False):
    """One trigger."""

    options: EventGridOptions
    sink: EventSink

    def wants(self, event: CloudEvent) -> bool:
        options, (bucket, key) = self.options, _object_of(event)
        return (
            (not options.event_types or event["type"] in options.event_types)
            and options.source_name in ("", event["source"])
            and options.bucket in ("", bucket)
            and key.startswith(options.prefix)
            and key.endswith(options.suffix)
        )

    def event(self, told: CloudEvent) -> Event:
        """An event that comes again calls the function once."""
        source, whole = quote(told["source"], safe=""), {**_COMMON, **told}  # quoted, its end is that of no other
        key = f"eventgrid:{self.sink.trigger_id}:{source}:{told['id']}"
        payload = msgspec.json.encode(_encoded(whole) if self.options.encode_key else whole)
        return Event(payload=payload, idempotency_key=key)


class EventGridService:
    """The endpoint, and who listens to which channel."""

    def __init__(self, settings: None) -> None:
        self._subscribers: list[Subscriber] = []

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.routes.mount("", self._answer, signed=True, operations=[PUSH]):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def subscribed(self, subscriber: Subscriber) -> Iterator[None]:
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    async def _answer(self, request: PushRequest) -> PushReply:
        if request.method != "POST":
            return PushReply(status=405, headers=((b"allow", b"POST"),))
        channel = request.path.removeprefix("/")
        listening = [
            one
            for one in self._subscribers
            if one.options.channel_id == channel and request.project in ("", one.sink.project)
        ]
        if not listening:
            raise NotFound(f"no trigger listens to the channel {channel[:100]!r}")
        accepted = await accept_each(
            (one.sink, one.event(event)) for event in read_events(request) for one in listening if one.wants(event)
        )
        return accepted_reply(accepted)


def known(service: EventGridService, options: EventGridOptions, sink: EventSink) -> AbstractContextManager[None]:
    return service.subscribed(Subscriber(options=options, sink=sink))


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
