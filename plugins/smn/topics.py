"""Topics that the engine serves itself. A publication is answered after all its invocations are on disk."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import IdempotencyConflict, PluginContext
from plugins._shared.rows import decoded_rows
from plugins.smn.events import Message, timestamp_of
from plugins.smn.listeners import Listener, Listeners, TopicKey, key_of
from plugins.smn.problems import SmnProblem, bad_request, no_topic

TABLE = "topics"
MOST = 3000  #: topics of a project


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
        self._listeners = listeners
        self._topics: dict[TopicKey, Topic] = {}  #: keyed by project and name
        self._changing = anyio.Lock()

    async def load(self) -> None:
        async for _, topic in decoded_rows(self._store, TABLE, Topic):
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
        return self._listeners.of_topic((topic.project, topic.name))

    async def create(
        self, project: str, name: str, display_name: str, enterprise_project_id: str = "0"
    ) -> tuple[Topic, bool]:
        """Return the project's topic of that name, and True if this call has created it."""
        async with self._changing:
            if found := self._topics.get((project, name)):
                return found, False
            if len(self.of_project(project)) >= MOST:
                raise SmnProblem(403, "SMN.0004", f"Exceeded topic limit. A project may have {MOST}")
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
            self._listeners.announce_topics()
            return topic, True

    async def rename(self, project: str, urn: str, display_name: str) -> None:
        async with self._changing:
            topic = self.find(project, urn)
            await self._save(replace(topic, display_name=display_name, modified_at=self._clock.now()))

    async def set_attributes(self, project: str, urn: str, attributes: Mapping[str, str]) -> None:
        """Set attributes by name. An empty value removes the attribute."""
        async with self._changing:
            topic = self.find(project, urn)
            await self._save(replace(topic, attributes=_without_empty({**topic.attributes, **attributes})))

    async def change_tags(self, project: str, urn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """Replace the topic's tags by those that ``change`` returns for them. Errors of ``change`` pass."""
        async with self._changing:
            topic = self.find(project, urn)
            await self._save(replace(topic, tags=change(topic.tags)))

    async def delete(self, project: str, urn: str) -> None:
        async with self._changing:
            topic = self.find(project, urn)
            await self._store.write(TABLE, delete=[f"{topic.project}/{topic.name}"])
            del self._topics[topic.project, topic.name]
            self._listeners.announce_topics()

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
        pairs = [(one.sink, one.event(sent, hops, content)) for one in self.subscribers(topic) if calls]
        if pairs:
            (first, event), *others = pairs
            try:
                await first.accept_with(event, others)
            except IdempotencyConflict:
                raise IdempotencyConflict(key) from None
        return sent.message_id

    # --- inside ---------------------------------------------------------------------------------------------

    async def _save(self, topic: Topic) -> None:
        await self._store.write(TABLE, {f"{topic.project}/{topic.name}": msgspec.json.encode(topic)})
        self._topics[topic.project, topic.name] = topic


def _without_empty(attributes: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in attributes.items() if value}
