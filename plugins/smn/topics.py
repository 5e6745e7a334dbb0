"""Topics that the engine serves itself, and triggers as subscribers of topics.

A publication is answered after all its invocations are on disk.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import ContentKey, Event, EventSink, IdempotencyConflict, PluginContext, Store
from plugins._shared.rows import decoded_rows, rows_of
from plugins.smn.events import Message, event_json, timestamp_of
from plugins.smn.problems import SmnProblem, bad_request, no_topic

SUBSCRIPTIONS, TOPICS = "subscriptions", "topics"
CONFIRMED, UNCONFIRMED = "Confirmed", "Unconfirmed"
#: Protocols that stand for functions in ``message_structure``, attributes of type PROTOCOL, and subscriptions.
PROTOCOLS = ("functionstage", "functiongraph")

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
        #: protocols of confirmed subscriptions to remote topics, and of those made by SMN's API, by trigger
        self._confirmed: dict[str, str] = {}
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
        return [listener for listener in self._by_topic.get(topic, ()) if listener.sink.project == topic[0]]

    # --- subscriptions to remote topics ---------------------------------------------------------------------

    async def load(self, store: Store) -> None:
        async for trigger_id, protocol in rows_of(store, SUBSCRIPTIONS):
            self._confirmed[trigger_id] = protocol.decode()

    def is_confirmed(self, trigger_id: str) -> bool:
        return self._confirmed.get(trigger_id) == ""

    def protocol(self, trigger_id: str) -> str:
        return self._confirmed.get(trigger_id) or PROTOCOLS[0]

    async def set_confirmed(self, store: Store, trigger_id: str, confirmed: bool, protocol: str = "") -> None:
        """Store whether the remote topic has the confirmation of a trigger's subscription."""
        if self._confirmed.get(trigger_id) == (protocol if confirmed else None):
            return
        if confirmed:
            await store.write(SUBSCRIPTIONS, {trigger_id: protocol.encode()})
            self._confirmed[trigger_id] = protocol
        else:
            await store.write(SUBSCRIPTIONS, delete=[trigger_id])
            self._confirmed.pop(trigger_id, None)

    async def forget_others(self, store: Store) -> None:
        """Delete the stored confirmations of all triggers that are not subscribed now."""
        subscribed = {listener.sink.trigger_id for listeners in self._by_topic.values() for listener in listeners}
        for trigger_id in sorted(self._confirmed.keys() - subscribed):
            await self.set_confirmed(store, trigger_id, False)


class Topic(Struct, frozen=True, kw_only=True):
    project: str
    name: str
    topic_id: str
    display_name: str = ""
    created_at: float
    modified_at: float
    enterprise_project_id: str = "0"
    attributes: dict[str, str] = {}  #: policies by name; stored for clients, without effect
    tags: dict[str, str] = {}
    own_keys: bool = False  #: keys of publications end with the topic; False: made by an earlier release


class Topics:
    """Topics of all projects. ``load`` must be called before other methods.

    Methods raise SmnProblem if a URN is invalid, if its topic does not exist, or if a project has too many topics.
    """

    def __init__(self, context: PluginContext, listeners: Listeners) -> None:
        self._store, self._clock, self._region = context.store, context.clock, context.region
        self._most = context.limits.topics
        self.context, self.listeners = context, listeners
        self._topics: dict[TopicKey, Topic] = {}  #: keyed by project and name
        self._changing = anyio.Lock()

    async def load(self) -> None:
        async for _, topic in decoded_rows(self._store, TOPICS, Topic):
            self._topics[topic.project, topic.name] = topic

    def urn(self, topic: Topic) -> str:
        return f"urn:smn:{self._region}:{topic.project}:{topic.name}"

    def of_project(self, project: str) -> Sequence[Topic]:
        """Return a project's topics, newest first."""
        own = [topic for (owner, _), topic in self._topics.items() if owner == project]
        return sorted(own, key=lambda topic: (-topic.created_at, topic.name))

    def has(self, project: str, urn: str) -> bool:
        key = key_of(urn)
        return key[:1] == (project,) and key in self._topics

    def find(self, project: str, urn: str) -> Topic:
        """Return a project's topic by its URN, whose region is ignored.

        Raises SmnProblem if the URN is invalid, or if the project has no such topic.
        """
        key = key_of(urn)
        if not key:
            raise bad_request(f"Parameter: TopicUrn is invalid. [{urn[:300]}]")
        if not self.has(project, urn):
            raise no_topic(urn)
        return self._topics[key]

    def subscribers(self, topic: Topic) -> Sequence[Listener]:
        return self.listeners.of_topic((topic.project, topic.name))

    async def subscribe(self, topic: Topic, function: str, protocol: str) -> str:
        """Return the id of the trigger that subscribes a function (URN) to a topic, and make it if there is none."""
        for subscriber in self.subscribers(topic):
            if subscriber.sink.function in (function, f"{function}:latest"):
                return subscriber.sink.trigger_id
        data = {"topic_urn": self.urn(topic)}
        trigger_id = await self.context.create_trigger("SMN", topic.project, function, data)
        await self.listeners.set_confirmed(self._store, trigger_id, True, protocol)
        return trigger_id

    async def unsubscribe(self, topic: Topic, trigger_id: str) -> None:
        await self.context.delete_trigger(topic.project, trigger_id)
        await self.listeners.set_confirmed(self._store, trigger_id, False)

    async def create(
        self, project: str, name: str, display_name: str, enterprise_project_id: str = "0"
    ) -> tuple[Topic, bool]:
        """Return the project's topic of that name, and True if this call has created it."""
        async with self._changing:
            if existing := self._topics.get((project, name)):
                return existing, False
            if len(self.of_project(project)) >= self._most:
                problem = f"Exceeded topic limit. A project may have {self._most} (setting limits.topics)"
                raise SmnProblem("SMN.0004", problem, 403)
            now = self._clock.now()
            topic = Topic(
                project=project,
                name=name,
                topic_id=uuid.uuid4().hex,
                display_name=display_name,
                created_at=now,
                modified_at=now,
                enterprise_project_id=enterprise_project_id,
                own_keys=True,
            )
            await self._save(topic)
            self.listeners.announce_topics()
            return topic, True

    async def rename(self, project: str, urn: str, display_name: str) -> None:
        async with self._changing:
            topic = self.find(project, urn)
            await self._save(replace(topic, display_name=display_name, modified_at=self._clock.now()))

    async def set_attributes(self, project: str, urn: str, attributes: Mapping[str, str]) -> None:
        """Set attributes by name. An empty value removes the attribute."""
        async with self._changing:
            topic = self.find(project, urn)
            present = {name: value for name, value in {**topic.attributes, **attributes}.items() if value}
            await self._save(replace(topic, attributes=present))

    async def change_tags(self, project: str, urn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the topic's tags by those that ``change`` returns for them. Errors of ``change`` pass."""
        async with self._changing:
            topic = self.find(project, urn)
            await self._save(replace(topic, tags=change(topic.tags)))

    async def delete(self, project: str, urn: str) -> None:
        async with self._changing:
            topic = self.find(project, urn)
            await self._store.write(TOPICS, delete=[f"{topic.project}/{topic.name}"])
            del self._topics[topic.project, topic.name]
            self.listeners.announce_topics()

    async def publish(
        self,
        project: str,
        urn: str,
        message: str,
        *,
        subject: str = "",
        attributes: Mapping[str, Any] | None = None,
        key: str = "",
        calls: bool = True,
        hops: int = 0,
    ) -> str:
        """Call all functions that are subscribed to the topic, or none if an error occurs. Return the message's id.

        Publications to one topic with the same ``key`` are the same message, and call each function once. If ``calls``
        is False, no function is called. ``hops`` is the number of functions that led to the message.

        Raises SmnProblem if the URN is invalid or the topic does not exist, IdempotencyConflict if the key was used
        for another message, and the errors with which ``EventSink`` refuses events.
        """
        topic = self.find(project, urn)
        own = self.urn(topic)
        unique = f"{topic.topic_id if topic.own_keys else own}/{key}"
        sent = Message(
            topic_urn=own,
            message_id=hashlib.sha256(unique.encode()).hexdigest()[:32] if key else uuid.uuid4().hex,
            message=message,
            timestamp=timestamp_of(self._clock.now()),
            subject=subject,
            attributes=attributes,
        )
        compared = key and topic.own_keys
        content = msgspec.json.encode([message, subject, attributes], order="deterministic") if compared else b""
        pairs = [
            (subscriber.sink, subscriber.event(sent, hops, content)) for subscriber in self.subscribers(topic) if calls
        ]
        if pairs:
            (first, event), *others = pairs
            try:
                await first.accept_with(event, others)
            except IdempotencyConflict:
                raise IdempotencyConflict(key) from None
        return sent.message_id

    # --- inside ---------------------------------------------------------------------------------------------

    async def _save(self, topic: Topic) -> None:
        await self._store.write(TOPICS, {f"{topic.project}/{topic.name}": msgspec.json.encode(topic)})
        self._topics[topic.project, topic.name] = topic
