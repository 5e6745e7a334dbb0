"""Test events of a function: payloads that users save in order to invoke the function with them later.

FunctionGraph API: CreateEvent and others.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.asgi.wire import Reply, json_reply
from engine.errors import BadEvent
from engine.http.api.routing import BASE, LONG_LIMIT, Call, Resource
from engine.resources.events import NAME, NAME_RULE, Event, Events

EventLabel = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description=NAME_RULE)]


class CreateEventBody(Struct, frozen=True, kw_only=True):
    name: EventLabel
    content: str


class UpdateEventBody(Struct, frozen=True, kw_only=True):
    content: str
    name: EventLabel | UnsetType = UNSET  #: not documented; Terraform sends it, also to rename an event


class EventName(Struct, frozen=True, kw_only=True):
    id: str
    name: str


class EventItem(EventName, frozen=True, kw_only=True):
    last_modified: float | UnsetType = UNSET  #: absent until the first change


class EventReply(EventItem, frozen=True, kw_only=True):
    content: str | UnsetType = UNSET  #: absent if the role of the caller may not see payloads


class EventList(Struct, frozen=True, kw_only=True):
    count: int
    events: list[EventItem]
    next_marker: int


class EventsApi:
    def __init__(self, events: Events) -> None:
        self._events = events

    def resources(self) -> list[Resource]:
        events = f"{BASE}/functions/{{function_urn}}/events"
        one = {"GET": self.show, "PUT": self.update, "DELETE": self.delete}
        return [
            Resource(path=events, methods={"POST": self.create, "GET": self.list_all}),
            Resource(path=f"{events}/{{event_id}}", methods=one),
        ]

    async def create(self, call: Call) -> Reply:
        urn = call.urn
        body = await call.read(CreateEventBody, LONG_LIMIT, error=BadEvent)
        return json_reply(_name(await self._events.create(urn, body.name, body.content)))

    async def list_all(self, call: Call) -> Reply:
        items = [_item(event) for event in self._events.list(call.urn)]
        return json_reply(EventList(count=len(items), events=items, next_marker=len(items)))

    async def show(self, call: Call) -> Reply:
        event = self._events.show(call.urn, call.part("event_id"))
        return json_reply(
            EventReply(id=event.id, name=event.name, last_modified=_last_modified(event), content=event.content)
        )

    async def update(self, call: Call) -> Reply:
        urn = call.urn
        body = await call.read(UpdateEventBody, LONG_LIMIT, error=BadEvent)
        name = "" if body.name is UNSET else body.name
        return json_reply(_name(await self._events.update(urn, call.part("event_id"), body.content, name)))

    async def delete(self, call: Call) -> Reply:
        await self._events.delete(call.urn, call.part("event_id"))
        return Reply(status=204)


def _name(event: Event) -> EventName:
    return EventName(id=event.id, name=event.name)


def _item(event: Event) -> EventItem:
    return EventItem(id=event.id, name=event.name, last_modified=_last_modified(event))


def _last_modified(event: Event) -> float | UnsetType:
    return UNSET if event.changed_at is None else int(event.changed_at)
