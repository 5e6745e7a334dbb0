"""Triggers as subscribers of topics, and the stored confirmations of subscriptions to remote topics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import anyio
from msgspec import Struct

from engine import ContentKey, Event, EventSink, Store
from plugins._shared.rows import rows_of
from plugins.smn.events import Message, event_json

TABLE = "subscriptions"
CONFIRMED, UNCONFIRMED = "Confirmed", "Unconfirmed"

#: project and name of a topic that the engine serves itself; empty for a text that is not a topic's URN
TopicKey = tuple[str, ...]


def key_of(urn: str) -> TopicKey:
    """Return project and name of a topic from its URN, or an empty tuple for other texts.

    The region in the URN is ignored, since an engine has only one.
    """
    parts = urn.split(":")
    return (parts[3], parts[4]) if len(parts) == 5 and parts[:2] == ["urn", "smn"] else ()


class Listener(Struct, frozen=True, kw_only=True, eq=False):
    """Trigger that is subscribed to the topic ``topic_urn``."""

    topic_urn: str
    sink: EventSink

    def event(self, message: Message, hops: int = 0, content: bytes = b"") -> Event:
        """Return the event of a message.

        Its idempotency key ensures that a repeated message calls the function once. ``content`` is compared in place of
        the event, since a message that is published again has another time.
        """
        key = f"smn:{self.sink.trigger_id}:{message.message_id}"
        key = ContentKey(key, content) if content else key
        return Event(payload=event_json(message, self.sink.function), idempotency_key=key, hops=hops)


class Listeners:
    """Subscribed triggers, by topic, and the stored confirmations of subscriptions to remote topics."""

    def __init__(self) -> None:
        self._by_topic: dict[TopicKey, list[Listener]] = {}
        self._confirmed: set[str] = set()  #: ids of triggers with a confirmed subscription to a remote topic
        self.topics_changed = anyio.Event()

    def announce_topics(self) -> None:
        """Wake those that wait for a change of the topics."""
        self.topics_changed.set()
        self.topics_changed = anyio.Event()

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Subscribe a trigger to its topic until the block ends."""
        topic = key_of(listener.topic_urn)
        of_topic = self._by_topic.setdefault(topic, [])
        of_topic.append(listener)
        try:
            yield
        finally:
            of_topic.remove(listener)
            if not of_topic:
                del self._by_topic[topic]

    def of_topic(self, topic: TopicKey) -> Sequence[Listener]:
        """Return the triggers that are subscribed to a topic of their project. Others' triggers are left out."""
        return [one for one in self._by_topic.get(topic, ()) if one.sink.project == topic[0]]

    # --- subscriptions to remote topics ---------------------------------------------------------------------

    async def load(self, store: Store) -> None:
        async for trigger_id, _ in rows_of(store, TABLE):
            self._confirmed.add(trigger_id)

    def is_confirmed(self, trigger_id: str) -> bool:
        return trigger_id in self._confirmed

    async def set_confirmed(self, store: Store, trigger_id: str, confirmed: bool) -> None:
        """Store whether the remote topic has the confirmation of a trigger's subscription."""
        if confirmed is self.is_confirmed(trigger_id):
            return
        if confirmed:
            await store.write(TABLE, {trigger_id: b""})
            self._confirmed.add(trigger_id)
        else:
            await store.write(TABLE, delete=[trigger_id])
            self._confirmed.discard(trigger_id)

    async def forget_others(self, store: Store) -> None:
        """Delete the stored confirmations of all triggers that are not subscribed now."""
        subscribed = {one.sink.trigger_id for listeners in self._by_topic.values() for one in listeners}
        for trigger_id in sorted(self._confirmed - subscribed):
            await self.set_confirmed(store, trigger_id, False)
