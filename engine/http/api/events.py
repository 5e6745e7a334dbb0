"""Test events of a function: payloads that users save in order to invoke the function with them later.

FunctionGraph API: CreateEvent and others.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from engine.errors import BadEvent
from engine.http.api.routing import FUNCTION, LONG_LIMIT, ApiFamily, BodyCall, Call, Subject, operation, read
from engine.resources.events import NAME, NAME_RULE, Event, Events

EventLabel = Annotated[str, Meta(pattern=f"^{NAME.pattern}$", description=NAME_RULE)]

_EVENTS = f"{FUNCTION}/events"
_EVENT = f"{_EVENTS}/{{event_id}}"


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
    last_modified: float | UnsetType = UNSET  #: absent outside of lists until the first change


class EventReply(EventItem, frozen=True, kw_only=True):
    content: str | UnsetType = UNSET  #: absent if the role of the caller may not see payloads


class EventList(Struct, frozen=True, kw_only=True):
    count: int
    events: list[EventItem]
    next_marker: int


class EventsApi(ApiFamily):
    subject = Subject("event", ("event_id", "id"), ("name",))

    def __init__(self, events: Events) -> None:
        self._events = events

    @operation("CreateEvent", "POST", _EVENTS, CreateEventBody, EventName, limit=LONG_LIMIT, error=BadEvent)
    async def create(self, call: BodyCall[CreateEventBody]) -> EventName:
        urn = call.urn
        body = await call.read()
        return _name(await self._events.create(urn, body.name, body.content))

    @read("ListEvents", _EVENTS, EventList)
    async def list_all(self, call: Call) -> EventList:
        items = [_item(event) for event in self._events.list(call.urn)]
        return EventList(count=len(items), events=items, next_marker=len(items))

    @read("ShowEvent", _EVENT, EventReply, hidden={"read": ("content",)})
    async def show(self, call: Call) -> EventReply:
        event = self._events.show(call.urn, call.part("event_id"))
        changed = UNSET if event.changed_at is None else int(event.changed_at)
        return EventReply(id=event.id, name=event.name, last_modified=changed, content=event.content)

    @operation("UpdateEvent", "PUT", _EVENT, UpdateEventBody, EventName, limit=LONG_LIMIT, error=BadEvent)
    async def update(self, call: BodyCall[UpdateEventBody]) -> EventName:
        urn = call.urn
        body = await call.read()
        name = "" if body.name is UNSET else body.name
        return _name(await self._events.update(urn, call.part("event_id"), body.content, name))

    @operation("DeleteEvent", "DELETE", _EVENT, status=204)
    async def delete(self, call: Call) -> None:
        await self._events.delete(call.urn, call.part("event_id"))


def _name(event: Event) -> EventName:
    return EventName(id=event.id, name=event.name)


def _item(event: Event) -> EventItem:
    return EventItem(id=event.id, name=event.name, last_modified=int(event.changed_at or event.created_at))
