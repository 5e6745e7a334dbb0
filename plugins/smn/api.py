"""API of the topics that the engine serves itself, at the vendor's paths: topics, their attributes and tags.

Bodies and queries are those that the vendor's SDK sends (huaweicloudsdksmn v2). Only functions can subscribe to these
topics: by their triggers, which subscriptions of this API make. E-mail, SMS and HTTP addresses are refused, as are
templates. A client can repeat a publication with the same ``Idempotency-Key``: each function is called once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer, Refuse, Table
from plugins.smn.events import timestamp_of
from plugins.smn.problems import SmnProblem, bad_request, no_topic, not_offered, reply_of
from plugins.smn.topics import PROTOCOLS, Listener, Topic, Topics

POLICY = "access_policy"
#: Maximum sizes of values in bytes, by attribute. Clients such as Terraform set and read them. They have no effect
#: here, since only clients of a topic's own project reach it.
SIZES: Mapping[str, int] = {POLICY: 30 << 10, "introduction": 120}
VERSION = "2016-09-07"
TAGS_LIMIT = 64 << 10  #: bytes of a body
#: Bytes of a body: the longest message in escaped form, and the other fields.
LIMIT = 2 << 20
CONFIRMED = 1
SUBJECT_LIMIT = 512  #: bytes
MESSAGE_LIMIT = 256 << 10  #: bytes
TAGS = 20  #: tags of a topic
LONGEST = 86_400  #: maximum of ``time_to_live`` in seconds

TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,254}\Z")]
DisplayName = Annotated[str, Meta(max_length=192)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
Offset = Annotated[int, Meta(ge=0)]


class CreateTopic(Struct, frozen=True, kw_only=True):
    name: TopicName
    display_name: DisplayName | None = None
    enterprise_project_id: Annotated[str, Meta(max_length=64)] | None = None


class UpdateTopic(Struct, frozen=True, kw_only=True):
    """Body of a PUT request. Terraform leaves out an empty ``display_name``."""

    display_name: DisplayName = ""


class ListTopics(Struct, frozen=True, kw_only=True):
    offset: Offset = 0
    limit: PageSize = 100
    name: str = ""
    fuzzy_name: str = ""
    topic_id: str = ""
    fuzzy_display_name: str = ""
    enterprise_project_id: str = ""


class ListAttributes(Struct, frozen=True, kw_only=True):
    name: str = ""


class UpdateAttribute(Struct, frozen=True, kw_only=True):
    value: str


class Tag(Struct, frozen=True, kw_only=True):
    key: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Annotated[str, Meta(max_length=256)] | None = None


class CreateTag(Struct, frozen=True, kw_only=True):
    tag: Tag


class ChangeTags(Struct, frozen=True, kw_only=True):
    action: Literal["create", "delete"]
    tags: Annotated[list[Tag], Meta(min_length=1, max_length=TAGS)]


class ListSubscriptions(Struct, frozen=True, kw_only=True):
    offset: Offset = 0
    limit: PageSize = 100
    protocol: str = ""
    endpoint: str = ""


class AddSubscription(Struct, frozen=True, kw_only=True):
    protocol: str
    endpoint: str


class Attribute(Struct, frozen=True, kw_only=True):
    name: Annotated[str, Meta(pattern=r"^(?!.*__)[a-z0-9](?:[a-z0-9_]{0,30}[a-z0-9])?\Z")]
    type: Literal["STRING", "STRING_ARRAY", "PROTOCOL"]
    value: str | list[str]

    def __post_init__(self) -> None:
        if isinstance(self.value, str) is not (self.type == "STRING"):
            raise ValueError(f"the value of {self.name} must be {'a text' if self.type == 'STRING' else 'a list'}")


class Publish(Struct, frozen=True, kw_only=True):
    subject: str | None = None
    message: str | None = None
    message_structure: str | None = None
    message_template_name: str | None = None
    time_to_live: str | int | None = None
    message_attributes: list[Attribute] | None = None

    def check(self) -> None:
        """Raise SmnProblem unless subject and ``time_to_live`` are valid.

        A template raises SmnProblem, too, but is ignored if there is a ``message_structure``.
        """
        if len((self.subject or "").encode()) > SUBJECT_LIMIT:
            raise SmnProblem("SMN.0008", f"Parameter: Subject is invalid. It may have {SUBJECT_LIMIT} bytes", 403)
        if self.message_template_name and not self.message_structure:
            hint = "Embedded topics have no templates: send message or message_structure"
            raise bad_request(f"Parameter: message_template_name is invalid. {hint}", "SMN.0032")
        life = str(self.time_to_live or LONGEST)
        if not (life.isascii() and life.isdigit() and len(life) <= 5 and 0 < int(life) <= LONGEST):
            raise bad_request(f"Parameter: time_to_live is invalid. It may be 1 to {LONGEST} seconds")

    def text(self) -> str:
        """Return the text for functions.

        Raises SmnProblem if ``message_structure`` is invalid, or if the text is empty or too long.
        """
        text = self._structured(self.message_structure) if self.message_structure else self.message or ""
        if not 0 < len(text.encode()) <= MESSAGE_LIMIT:
            raise SmnProblem("SMN.0009", f"Parameter: Message is invalid. It must have 1 to {MESSAGE_LIMIT} bytes", 403)
        return text

    def attributes(self) -> Mapping[str, Any] | None:
        if not self.message_attributes:
            return None
        return {
            attribute.name: {"type": attribute.type, "value": attribute.value} for attribute in self.message_attributes
        }

    @property
    def calls(self) -> bool:
        """Flag that functions get the message: False if an attribute of type PROTOCOL lists other protocols only."""
        chosen = [attribute.value for attribute in self.message_attributes or () if attribute.type == "PROTOCOL"]
        return all(any(protocol in value for protocol in PROTOCOLS) for value in chosen)

    @staticmethod
    def _structured(structure: str) -> str:
        try:
            by_protocol = msgspec.json.decode(structure, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise bad_request(f"MessageStructure is invalid. {error}", "SMN.0021") from None
        if not isinstance(by_protocol.get("default"), str):
            raise bad_request("MessageStructure is invalid. It needs a text as default", "SMN.0021")
        names: Sequence[str] = [*PROTOCOLS, "default"]
        return next(text for name in names if isinstance(text := by_protocol.get(name), str))


def check_name(name: str) -> None:
    if name not in SIZES:
        hint = f"It must be one of {', '.join(SIZES)}"
        raise bad_request(f"Parameter: Attribute name is invalid. [{name[:300]}] {hint}", "SMN.0046")


def check_value(name: str, value: str) -> None:
    """Raise SmnProblem if there is no such attribute, or if it cannot have this value. Empty values are valid."""
    check_name(name)
    if len(value.encode()) > SIZES[name]:
        hint = f"{name} may have {SIZES[name]} bytes"
        raise SmnProblem("SMN.0047", f"Parameter: Value exceeds the maximum length. {hint}", 403)
    if name == POLICY and value:
        _check_policy(value)


def _check_policy(value: str) -> None:
    try:
        policy = msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise bad_request(f"Parameter: Access policy is invalid. {error}", "SMN.0048") from None
    if policy.get("Version") != VERSION:
        raise bad_request(f"Parameter: Access policy version is invalid. It must be {VERSION}", "SMN.0049")
    if not (isinstance(policy.get("Id"), str) and policy["Id"]):
        raise bad_request("Parameter: Access policy ID is invalid. It must be a text", "SMN.0050")
    statements = policy.get("Statement")
    if not (
        isinstance(statements, list) and statements and all(isinstance(statement, dict) for statement in statements)
    ):
        raise bad_request("Parameter: Access policy statement is invalid. It must be a list of objects", "SMN.0051")


def _invalid_tag(problem: str) -> SmnProblem:
    return bad_request(f"Parameter: tag is invalid. {problem}", "SMN.0038")


class SmnApi:
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        topics_, topic = "notifications topics", "notifications topics {topic_urn}"
        self.table = Table(
            {
                f"POST v2 {topics_}": Offer(
                    self._create, "SmnCreateTopic", body=CreateTopic, refuse=_invalid("SMN.0002"), status=201
                ),
                f"GET v2 {topics_}": Offer(self._list, "SmnListTopics", query=ListTopics, roles=READ),
                f"GET v2 {topic}": Offer(self._show, "SmnShowTopic", roles=READ),
                f"PUT v2 {topic}": Offer(self._update, "SmnUpdateTopic", body=UpdateTopic, refuse=_invalid("SMN.0003")),
                f"DELETE v2 {topic}": Offer(self._delete, "SmnDeleteTopic"),
                f"POST v2 {topic} publish": Offer(
                    self._publish,
                    "SmnPublishMessage",
                    body=Publish,
                    refuse=_invalid("SMN.0009"),
                    headers=("Idempotency-Key",),
                    roles=INVOKE,
                    data=True,
                ),
                f"GET v2 {topic} attributes": Offer(
                    self._list_attributes, "SmnListTopicAttributes", query=ListAttributes, roles=READ
                ),
                f"PUT v2 {topic} attributes {{name}}": Offer(
                    self._update_attribute,
                    "SmnUpdateTopicAttribute",
                    body=UpdateAttribute,
                    refuse=_invalid("SMN.0046"),
                ),
                f"DELETE v2 {topic} attributes {{name}}": Offer(
                    self._delete_attribute, "SmnDeleteTopicAttributeByName"
                ),
                f"DELETE v2 {topic} attributes": Offer(self._delete_attributes, "SmnDeleteTopicAttributes"),
                f"POST v2 {topic} subscriptions": Offer(
                    self._subscribe, "SmnAddSubscription", body=AddSubscription, refuse=_invalid("SMN.0011"), status=201
                ),
                f"GET v2 {topic} subscriptions": Offer(
                    self._list_of_topic, "SmnListSubscriptionsByTopic", query=ListSubscriptions, roles=READ
                ),
                "GET v2 notifications subscriptions": Offer(
                    self._list_all, "SmnListSubscriptions", query=ListSubscriptions, roles=READ
                ),
                "DELETE v2 notifications subscriptions {subscription_urn}": Offer(
                    self._unsubscribe, "SmnCancelSubscription"
                ),
            },
            not_offered,
            lambda problem: bad_request(f"Parameter: Offset or limit is invalid. {problem}", "SMN.0015"),
            encode=reply_of,
        )
        tags = "smn_topic {resource_id} tags"
        self.tags = Table(
            {
                f"GET v2 {tags}": Offer(self._list_tags, "SmnListResourceTags", roles=READ),
                f"POST v2 {tags}": Offer(self._create_tag, "SmnCreateResourceTag", body=CreateTag, status=204),
                f"POST v2 {tags} action": Offer(
                    self._change_tags, "SmnBatchCreateOrDeleteResourceTags", body=ChangeTags, status=204
                ),
                f"DELETE v2 {tags} {{key}}": Offer(self._delete_tag, "SmnDeleteResourceTag", status=204),
                "GET v2 smn_topic tags": Offer(self._list_all_tags, "SmnListProjectTags", roles=READ),
            },
            not_offered,
            _invalid_tag,
        )

    # --- topics ---------------------------------------------------------------------------------------------

    async def _create(self, call: Call, body: CreateTopic) -> Answer:
        topic, new = await self._topics.create(
            call.project, body.name, body.display_name or "", body.enterprise_project_id or "0"
        )
        return 201 if new else 200, {"topic_urn": self._topics.urn(topic)}

    async def _list(self, call: Call, query: ListTopics) -> Answer:
        topics = [
            topic
            for topic in self._topics.of_project(call.project)
            if query.name in ("", topic.name)
            and query.topic_id in ("", topic.topic_id)
            and query.fuzzy_name in topic.name
            and query.fuzzy_display_name in topic.display_name
            and query.enterprise_project_id in ("", topic.enterprise_project_id)
        ]
        page = topics[query.offset : query.offset + query.limit]
        return 200, {"topic_count": len(topics), "topics": [self._shown(topic) for topic in page]}

    async def _show(self, call: Call, urn: str) -> Answer:
        return 200, self._shown(self._topics.find(call.project, urn))

    async def _update(self, call: Call, urn: str, body: UpdateTopic) -> Answer:
        await self._topics.rename(call.project, urn, body.display_name)
        return 200, {}

    async def _delete(self, call: Call, urn: str) -> Answer:
        await self._topics.delete(call.project, urn)
        return 200, {}

    async def _publish(self, call: Call, urn: str, body: Publish) -> Answer:
        body.check()
        message_id = await self._topics.publish(
            call.project,
            urn,
            body.text(),
            subject=body.subject or "",
            attributes=body.attributes(),
            key=call.request.headers.get(b"idempotency-key", b"").decode("latin-1"),
            calls=body.calls,
        )
        return 200, {"message_id": message_id}

    # --- attributes -----------------------------------------------------------------------------------------

    async def _list_attributes(self, call: Call, urn: str, query: ListAttributes) -> Answer:
        topic, name = self._topics.find(call.project, urn), query.name
        if name:
            check_name(name)
        return 200, {"attributes": {key: topic.attributes.get(key, "") for key in SIZES if name in ("", key)}}

    async def _update_attribute(self, call: Call, urn: str, name: str, body: UpdateAttribute) -> Answer:
        self._topics.find(call.project, urn)
        check_value(name, body.value)
        await self._topics.set_attributes(call.project, urn, {name: body.value})
        return 200, {}

    async def _delete_attribute(self, call: Call, urn: str, name: str) -> Answer:
        check_name(name)
        await self._topics.set_attributes(call.project, urn, {name: ""})
        return 200, {}

    async def _delete_attributes(self, call: Call, urn: str) -> Answer:
        await self._topics.set_attributes(call.project, urn, dict.fromkeys(SIZES, ""))
        return 200, {}

    # --- tags -----------------------------------------------------------------------------------------------

    async def _list_tags(self, call: Call, resource_id: str) -> Answer:
        tags = sorted(self._tagged(call, resource_id).tags.items())
        return 200, {"tags": [{"key": key, "value": value} for key, value in tags]}

    async def _list_all_tags(self, call: Call) -> Answer:
        values: dict[str, set[str]] = {}
        for topic in self._topics.of_project(call.project):
            for key, value in topic.tags.items():
                values.setdefault(key, set()).add(value)
        return 200, {"tags": [{"key": key, "values": sorted(texts)} for key, texts in sorted(values.items())]}

    async def _create_tag(self, call: Call, resource_id: str, body: CreateTag) -> Answer:
        return await self._add_tags(call, resource_id, [body.tag])

    async def _change_tags(self, call: Call, resource_id: str, body: ChangeTags) -> Answer:
        if body.action == "create":
            return await self._add_tags(call, resource_id, body.tags)
        return await self._remove_tags(call, resource_id, {tag.key for tag in body.tags})

    async def _delete_tag(self, call: Call, resource_id: str, key: str) -> Answer:
        return await self._remove_tags(call, resource_id, {key})

    async def _add_tags(self, call: Call, resource_id: str, tags: list[Tag]) -> Answer:
        added = {tag.key: tag.value or "" for tag in tags}
        if len(added) < len(tags):
            raise _invalid_tag("A key may be given once")

        def change(old: dict[str, str]) -> dict[str, str]:
            new = {**old, **added}
            if len(new) > TAGS:
                raise _invalid_tag(f"A topic may have {TAGS} tags")
            return new

        await self._topics.change_tags(call.project, self._topics.urn(self._tagged(call, resource_id)), change)
        return 204, None

    async def _remove_tags(self, call: Call, resource_id: str, keys: set[str]) -> Answer:
        topic = self._topics.urn(self._tagged(call, resource_id))
        await self._topics.change_tags(
            call.project, topic, lambda old: {key: value for key, value in old.items() if key not in keys}
        )
        return 204, None

    def _tagged(self, call: Call, resource_id: str) -> Topic:
        """Return a topic by its ``topic_id``, or by its name if a header says so, as Terraform sends it."""
        by_name = call.request.headers.get(b"x-smn-resourceid-type") == b"name"
        for topic in self._topics.of_project(call.project):
            if resource_id == (topic.name if by_name else topic.topic_id):
                return topic
        raise no_topic(resource_id)

    # --- subscriptions --------------------------------------------------------------------------------------

    async def _subscribe(self, call: Call, urn: str, body: AddSubscription) -> Answer:
        topic = self._topics.find(call.project, urn)
        if body.protocol not in PROTOCOLS:
            hint = f"It must be one of {', '.join(PROTOCOLS)}. For others, use the destination WEBHOOK"
            raise bad_request(f"Parameter: Protocol is invalid. {hint}", "SMN.0011")
        trigger_id = await self._topics.subscribe(topic, body.endpoint, body.protocol)
        return 201, {"subscription_urn": self._subscription_urn(topic, trigger_id)}

    async def _unsubscribe(self, call: Call, urn: str) -> Answer:
        for topic, subscriber in self._subscribed(self._topics.of_project(call.project)):
            if urn == self._subscription_urn(topic, subscriber.sink.trigger_id):
                await self._topics.unsubscribe(topic, subscriber.sink.trigger_id)
                return 200, {}
        raise SmnProblem("SMN.0014", f"Subscription not found. [{urn[:300]}]", 404)

    async def _list_of_topic(self, call: Call, urn: str, query: ListSubscriptions) -> Answer:
        return self._page([self._topics.find(call.project, urn)], query)

    async def _list_all(self, call: Call, query: ListSubscriptions) -> Answer:
        return self._page(self._topics.of_project(call.project), query)

    def _subscribed(self, topics: Sequence[Topic]) -> list[tuple[Topic, Listener]]:
        return [(topic, subscriber) for topic in topics for subscriber in self._topics.subscribers(topic)]

    def _page(self, topics: Sequence[Topic], query: ListSubscriptions) -> Answer:
        shown, names = [self._subscription(*pair) for pair in self._subscribed(topics)], ("protocol", "endpoint")
        found = [one for one in shown if all(getattr(query, name) in ("", one[name]) for name in names)]
        page = found[query.offset : query.offset + query.limit]
        return 200, {"subscription_count": len(found), "subscriptions": page}

    # --- shapes ---------------------------------------------------------------------------------------------

    def _shown(self, topic: Topic) -> dict[str, Any]:
        return {
            "topic_urn": self._topics.urn(topic),
            "topic_id": topic.topic_id,
            "name": topic.name,
            "display_name": topic.display_name,
            "push_policy": 0,
            "enterprise_project_id": topic.enterprise_project_id,
            "create_time": timestamp_of(topic.created_at),
            "update_time": timestamp_of(topic.modified_at),
        }

    def _subscription_urn(self, topic: Topic, trigger_id: str) -> str:
        return f"{self._topics.urn(topic)}:{trigger_id.replace('-', '')}"

    def _subscription(self, topic: Topic, listener: Listener) -> dict[str, Any]:
        trigger_id = listener.sink.trigger_id
        return {
            "topic_urn": self._topics.urn(topic),
            "subscription_urn": self._subscription_urn(topic, trigger_id),
            "protocol": self._topics.listeners.protocol(trigger_id),
            "endpoint": listener.sink.function,
            "owner": topic.project,
            "remark": "",
            "status": CONFIRMED,
            "filter_polices": [],
        }


def _invalid(code: str) -> Refuse:
    return lambda problem: bad_request(f"Request error. {problem}", code)
