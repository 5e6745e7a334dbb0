"""Source of EVENTGRID: an HTTP endpoint for each channel. Its CloudEvents go to all triggers of the channel.

``POST /triggers/eventgrid/<channel_id>`` needs credentials of the engine's API, if the engine has any. An event with
the source and id of an earlier one calls no function again (by default, within one day), so a sender may repeat a
batch that was accepted only in part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import Event, EventSink, NotFound, PluginContext, PushRequest, Reply, TriggerContext
from plugins._shared.push import ONLY_POST, accept_each, accepted_reply, push_operation
from plugins.eventgrid.cloudevents import CloudEvent, event_json, object_of, read_events
from plugins.eventgrid.options import EventGridOptions

PUSH = push_operation("EventGridPushEvents", "/triggers/eventgrid/{channel_id}")


class EventGridTrigger:
    """Source that only waits, since the service passes events on from the moment when the trigger is stored."""

    def __init__(self, options: EventGridOptions) -> None: ...

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep_forever()


class Subscriber(Struct, frozen=True, kw_only=True, eq=False):
    """Trigger that is subscribed to a channel."""

    options: EventGridOptions
    types: frozenset[str]  #: of events that match; empty: all
    sink: EventSink

    def wants(self, event: CloudEvent) -> bool:
        options = self.options
        if (self.types and event["type"] not in self.types) or options.source_name not in ("", event["source"]):
            return False
        bucket, key = object_of(event)
        return options.bucket in ("", bucket) and key.startswith(options.prefix) and key.endswith(options.suffix)

    def event(self, received: CloudEvent) -> Event:
        """Return the event for the function.

        Its idempotency key ensures that a repeated event calls the function once.
        """
        # Quoted, the source has no colon, so keys of different sources and ids differ.
        source = quote(received["source"], safe="")
        key = f"eventgrid:{self.sink.trigger_id}:{source}:{received['id']}"
        payload = event_json(received, encode_key=self.options.encode_key)
        trace = str(received.get("traceparent", ""))  # extension for distributed tracing
        return Event(payload=payload, idempotency_key=key, traceparent=trace.encode("latin-1", "replace"))


class EventGridService:
    """Part of EVENTGRID that runs once for all its triggers: the endpoint, and the triggers subscribed to channels."""

    def __init__(self, settings: None) -> None:
        self._subscribers: list[Subscriber] = []

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.routes.mount("", self._answer, signed=True, operations=[PUSH]):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def subscribed(self, options: EventGridOptions, sink: EventSink) -> Iterator[None]:
        subscriber = Subscriber(options=options, types=frozenset(options.event_types), sink=sink)
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    async def _answer(self, request: PushRequest) -> Reply:
        if request.method != "POST":
            return ONLY_POST
        channel = request.path.removeprefix("/")
        listening = [
            subscriber
            for subscriber in self._subscribers
            if subscriber.options.channel_id == channel and request.project in ("", subscriber.sink.project)
        ]
        if not listening:
            raise NotFound(f"no EVENTGRID trigger exists for the channel {channel[:100]!r}")
        accepted = await accept_each(
            (subscriber.sink, subscriber.event(event)) if subscriber.wants(event) else None
            for event in read_events(request)
            for subscriber in listening
        )
        return accepted_reply(accepted)
