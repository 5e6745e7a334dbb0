"""Test events that clients save for a function. All versions of the function share them."""

from __future__ import annotations

import base64
import re
import uuid
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from engine.errors import BadEvent, EventExists, EventTooLarge, TooManyEvents, UnknownEvent
from engine.functions.catalog import Catalog
from engine.model.clock import Clock
from engine.model.urn import FunctionUrn
from engine.resources.repository import Repository, function_owner

MAX_SIZE = 4096  #: bytes of the event itself
NAME = re.compile(r"[A-Za-z0-9][\w-]{0,24}", re.ASCII)
NAME_RULE = "needs 1 to 25 letters, digits, - and _, and begins with a letter or digit"
_LONGEST_TEXT = MAX_SIZE * 2  #: characters of base64, with line breaks


class Event(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    content: str  #: base64, as received: mostly of JSON; the platform stores other texts too
    created_at: float
    modified_at: float  #: 0: not changed since its creation

    @property
    def changed_at(self) -> float | None:
        """Time of the last change in seconds since the epoch; None if there was none."""
        # Earlier engines stored the time of creation for an event without a change.
        return self.modified_at if self.modified_at not in (0.0, self.created_at) else None


class Events:
    def __init__(self, repository: Repository[Event], catalog: Catalog, clock: Clock) -> None:
        self._repository, self._catalog, self._clock = repository, catalog, clock

    def list(self, urn: FunctionUrn) -> Sequence[Event]:
        """Return the saved test events of a function, oldest first.

        Raises UnknownFunction if the function does not exist, like all methods.
        """
        return sorted(self._repository.of(self._owner(urn)).values(), key=lambda event: event.created_at)

    def show(self, urn: FunctionUrn, id: str) -> Event:
        event = self._repository.of(self._owner(urn)).get(id)
        if event is None:
            raise UnknownEvent(id)
        return event

    async def create(self, urn: FunctionUrn, name: str, content: str) -> Event:
        check_event(name, content)
        async with self._repository.change():
            owner = self._owner(urn)
            others = self._repository.of(owner)
            _check_free(name, others.values())
            if len(others) >= self._catalog.limits.test_events:
                raise TooManyEvents(self._catalog.limits.test_events)
            now = self._clock.now()
            event = Event(id=str(uuid.uuid4()), name=name, content=content, created_at=now, modified_at=0.0)
            await self._repository.put(owner, event.id, event)
        return event

    async def update(self, urn: FunctionUrn, id: str, content: str, name: str = "") -> Event:
        """Replace the content of a saved test event, and its name unless ``name`` is empty."""
        async with self._repository.change():
            old, owner = self.show(urn, id), self._owner(urn)
            name = name or old.name
            check_event(name, content)
            _check_free(name, (other for other in self._repository.of(owner).values() if other.id != id))
            event = msgspec.structs.replace(old, name=name, content=content, modified_at=self._clock.now())
            await self._repository.put(owner, id, event)
        return event

    async def delete(self, urn: FunctionUrn, id: str) -> None:
        async with self._repository.change():
            self.show(urn, id)
            await self._repository.delete(self._owner(urn), id)

    def _owner(self, urn: FunctionUrn) -> str:
        return function_owner(self._catalog.find(urn))


def _check_free(name: str, others: Iterable[Event]) -> None:
    if any(other.name == name for other in others):
        raise EventExists(name)


def check_event(name: str, content: str) -> None:
    if not NAME.fullmatch(name):
        raise BadEvent("name", name, NAME_RULE)
    if len(content) > _LONGEST_TEXT:
        raise EventTooLarge(MAX_SIZE)
    try:
        event = base64.b64decode("".join(content.split()).encode("ascii"), validate=True)
    except ValueError as error:
        raise BadEvent("content", content, f"must be the base64 of an event ({error})") from None
    if len(event) > MAX_SIZE:
        raise EventTooLarge(MAX_SIZE)
