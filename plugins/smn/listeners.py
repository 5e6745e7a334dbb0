"""The triggers that run: which functions a message is for, and whether their subscriptions are confirmed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

from engine import Event, Store, TriggerContext
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
    context: TriggerContext

    def event(self, message: Message, hops: int = 0) -> Event:
        """A message that comes again calls the function once."""
        key = f"smn:{self.context.trigger_id}:{message.message_id}"
        return Event(payload=event_json(message, self.context.function), idempotency_key=key, hops=hops)


class Listeners:
    def __init__(self) -> None:
        self._running: dict[str, Listener] = {}
        self._by_place: dict[Place, list[Listener]] = {}
        self._confirmed: set[str] = set()  #: ids of triggers that topics elsewhere push to

    @contextmanager
    def heard(self, listener: Listener) -> Iterator[None]:
        """Messages reach a trigger; where it runs twice while it changes, its newer self."""
        key, place = listener.context.trigger_id, place_of(listener.topic_urn)
        of_topic = self._by_place.setdefault(place, [])
        self._running[key] = listener
        of_topic.append(listener)
        try:
            yield
        finally:
            of_topic.remove(listener)
            if not of_topic:
                del self._by_place[place]
            if self._running[key] is listener:
                del self._running[key]

    def of_topic(self, place: Place) -> Sequence[Listener]:
        """Those of the topic's own project."""
        return [
            one
            for one in self._by_place.get(place, ())
            if one.context.project == place[0] and self._running[one.context.trigger_id] is one
        ]

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
        """Triggers that do not run any more are gone."""
        for trigger_id in sorted(self._confirmed - self._running.keys()):
            await self.note(store, trigger_id, False)
