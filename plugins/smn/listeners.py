"""The triggers that there are: which functions a message is for, and whether their subscriptions are confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from engine import Event, EventSink, Store
from plugins.smn.message import Message, event_json

TABLE = "subscriptions"
CONFIRMED, UNCONFIRMED = "Confirmed", "Unconfirmed"

#: Project and name of a topic of the engine's; empty for what is no URN of one.
Place = tuple[str, ...]


def place_of(urn: str) -> Place:
    """A URN's region is taken as it comes: the engine has one."""
    parts = urn.split(":")
    return (parts[3], parts[4]) if len(parts) == 5 and parts[:2] == ["urn", "smn"] else ()


class Listener(Struct, frozen=True, kw_only=True, eq=False):
    """One trigger."""

    topic_urn: str
    sink: EventSink

    def event(self, message: Message, hops: int = 0) -> Event:
        """A message that comes again calls the function once."""
        key = f"smn:{self.sink.trigger_id}:{message.message_id}"
        return Event(payload=event_json(message, self.sink.function), idempotency_key=key, hops=hops)


class Listeners:
    def __init__(self) -> None:
        self._known: set[str] = set()  #: ids of triggers
        self._by_place: dict[Place, list[Listener]] = {}
        self._confirmed: set[str] = set()  #: ids of triggers that topics elsewhere push to

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Messages reach a trigger."""
        key, place = listener.sink.trigger_id, place_of(listener.topic_urn)
        of_topic = self._by_place.setdefault(place, [])
        self._known.add(key)
        of_topic.append(listener)
        try:
            yield
        finally:
            of_topic.remove(listener)
            if not of_topic:
                del self._by_place[place]
            self._known.discard(key)

    def of_topic(self, place: Place) -> Sequence[Listener]:
        """Those of the topic's own project."""
        return [one for one in self._by_place.get(place, ()) if one.sink.project == place[0]]

    # --- subscriptions to topics elsewhere ------------------------------------------------------------------

    async def load(self, store: Store) -> None:
        after = ""
        while rows := await store.scan(TABLE, after=after):
            after = rows[-1][0]
            self._confirmed.update(key for key, _ in rows)

    def is_confirmed(self, trigger_id: str) -> bool:
        return trigger_id in self._confirmed

    async def note(self, store: Store, trigger_id: str, confirmed: bool) -> None:
        if confirmed is self.is_confirmed(trigger_id):
            return
        if confirmed:
            await store.write(TABLE, {trigger_id: b""})
            self._confirmed.add(trigger_id)
        else:
            await store.write(TABLE, delete=[trigger_id])
            self._confirmed.discard(trigger_id)

    async def forget_others(self, store: Store) -> None:
        """What is not known of by now is gone."""
        for trigger_id in sorted(self._confirmed - self._known):
            await self.note(store, trigger_id, False)
