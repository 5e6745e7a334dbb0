"""Source of EVENTGRID: an HTTP endpoint for each channel. Its CloudEvents go to all triggers of the channel.

``POST /triggers/eventgrid/<channel_id>`` needs credentials of the engine's API, if the engine has any. So does
EventGrid's own ``POST /v1/<project>/channels/<channel_id>/events``. An event with the source and id of an earlier one
calls no function again (by default, within one day), so a sender may repeat a batch that was accepted only in part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any
from urllib.parse import quote

import anyio
from anyio.abc import TaskStatus
from msgspec import Meta, Struct

from engine import Event, EventSink, FunctiondError, NotFound, PluginContext, PushRequest, Reply, TriggerContext
from plugins._shared.push import ONLY_POST, accept_each, accepted_reply, check_values, push_operation
from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer, Table, VendorProblem
from plugins.eventgrid.cloudevents import CloudEvent, checked, event_json, object_of, read_events
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


class Events(Struct, frozen=True, kw_only=True):
    events: list[dict[str, Any]]


class Page(Struct, frozen=True, kw_only=True):
    offset: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    name: str = ""


class EventGridService:
    """Part of EVENTGRID that runs once for all its triggers: the endpoints, and the triggers subscribed to channels."""

    def __init__(self, settings: None) -> None:
        self._subscribers: list[Subscriber] = []
        put = Offer(self._put, "EventGridPutEvents", body=Events, roles=INVOKE, data=True)
        channels = Offer(self._channels, "EventGridListChannels", query=Page, roles=READ)
        offers = {"POST v1 channels {channel_id} events": put, "GET v1 channels": channels}
        self._vendor = Table(offers, _refuse, partial(_refuse, 400), unpack=lambda request: check_values(request.body))

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        with context.routes.mount("", self._answer, signed=True, operations=[PUSH]), self._vendor.served(context):
            task_status.started()
            await anyio.sleep_forever()

    @contextmanager
    def subscribed(self, options: EventGridOptions, sink: EventSink) -> Iterator[None]:
        """Pass events of the trigger's channel to ``sink`` until the block ends."""
        subscriber = Subscriber(options=options, types=frozenset(options.event_types), sink=sink)
        self._subscribers.append(subscriber)
        try:
            yield
        finally:
            self._subscribers.remove(subscriber)

    async def _answer(self, request: PushRequest) -> Reply:
        if request.method != "POST":
            return ONLY_POST
        listening = self._listening(request.path.removeprefix("/"), request.project)
        return accepted_reply(await accept_each(_wanted(read_events(request), listening)))

    def _listening(self, channel: str, project: str) -> list[Subscriber]:
        """Return the subscribers of a channel; of all projects if ``project`` is empty. Raises NotFound for none."""
        of_channel = [each for each in self._subscribers if each.options.channel_id == channel]
        if not (found := [each for each in of_channel if project in ("", each.sink.project)]):
            raise NotFound(f"no EVENTGRID trigger exists for the channel {channel[:100]!r}")
        return found

    async def _put(self, call: Call, channel: str, body: Events) -> Answer:
        """Accept each event of a request, or tell why it was refused."""
        listening = self._listening(channel, call.project)
        results = [await _result(event, listening) for event in body.events]
        return 200, {"failed_count": sum("error_code" in result for result in results), "events": results}

    async def _channels(self, call: Call, query: Page) -> Answer:
        """List the channels that triggers of the project name."""
        options = [each.options for each in self._subscribers if each.sink.project == call.project]
        names = {each.channel_id: each.channel_name or each.channel_id for each in options}
        found = sorted((name, channel) for channel, name in names.items() if query.name in ("", name))
        page = found[query.offset : query.offset + query.limit]
        items = [{"id": channel, "name": name, "provider_type": "CUSTOM"} for name, channel in page]
        return 200, {"total": len(found), "size": len(items), "items": items}


def _wanted(events: Iterable[CloudEvent], listening: Sequence[Subscriber]) -> Iterator[tuple[EventSink, Event] | None]:
    for event in events:
        for each in listening:
            yield (each.sink, each.event(event)) if each.wants(event) else None


async def _result(event: CloudEvent, listening: Sequence[Subscriber]) -> dict[str, Any]:
    """Accept an event. Return its entry in the reply, with the reason if it was refused."""
    await anyio.lowlevel.checkpoint()  # an event that no trigger wants holds the loop
    try:
        await accept_each(_wanted([checked(event)], listening))
    except FunctiondError as error:
        return {"event_id": event.get("id"), "error_code": f"EG.{type(error).__name__}", "error_msg": str(error)}
    return {"event_id": event["id"]}


def _refuse(status: int, problem: str) -> VendorProblem:
    return VendorProblem(f"EG.{status}", problem, status)
