"""API of the topics that the engine serves itself, at the vendor's paths.

Only functions can subscribe to these topics, by their triggers. Subscriptions of e-mail, SMS and HTTP addresses are
refused, as are templates. A client can repeat a publication with the same ``Idempotency-Key``: each
function is called once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from plugins._shared import vendor_api
from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer, Table
from plugins.smn import bodies as b
from plugins.smn.attributes import SIZES, check_name, check_value
from plugins.smn.listeners import Listener
from plugins.smn.message import timestamp_of
from plugins.smn.problems import bad_request, not_offered, reply_of
from plugins.smn.topics import Topic, Topics

T = TypeVar("T")

HEAD = "v2/notifications"
#: Bytes of a body: the longest message in escaped form, and the other fields.
LIMIT = 2 << 20
CONFIRMED = 1


class SmnApi:
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        topics_, topic = "notifications topics", "notifications topics {topic_urn}"
        self.table = Table(
            {
                f"POST v2 {topics_}": Offer(self._create, "SmnCreateTopic", body=b.CreateTopic, status=201),
                f"GET v2 {topics_}": Offer(self._list, "SmnListTopics", query=b.ListTopics, roles=READ),
                f"GET v2 {topic}": Offer(self._show, "SmnShowTopic", roles=READ),
                f"PUT v2 {topic}": Offer(self._update, "SmnUpdateTopic", body=b.UpdateTopic),
                f"DELETE v2 {topic}": Offer(self._delete, "SmnDeleteTopic"),
                f"POST v2 {topic} publish": Offer(
                    self._publish,
                    "SmnPublishMessage",
                    body=b.Publish,
                    headers=("Idempotency-Key",),
                    roles=INVOKE,
                    data=True,
                ),
                f"GET v2 {topic} attributes": Offer(
                    self._list_attributes, "SmnListTopicAttributes", query=b.ListAttributes, roles=READ
                ),
                f"PUT v2 {topic} attributes {{name}}": Offer(
                    self._update_attribute, "SmnUpdateTopicAttribute", body=b.UpdateAttribute
                ),
                f"DELETE v2 {topic} attributes {{name}}": Offer(
                    self._delete_attribute, "SmnDeleteTopicAttributeByName"
                ),
                f"DELETE v2 {topic} attributes": Offer(self._delete_attributes, "SmnDeleteTopicAttributes"),
                f"POST v2 {topic} subscriptions": Offer(self._subscribe, "SmnAddSubscription"),
                f"GET v2 {topic} subscriptions": Offer(
                    self._list_of_topic, "SmnListSubscriptionsByTopic", query=b.ListSubscriptions, roles=READ
                ),
                "GET v2 notifications subscriptions": Offer(
                    self._list_all, "SmnListSubscriptions", query=b.ListSubscriptions, roles=READ
                ),
                "DELETE v2 notifications subscriptions {subscription_urn}": Offer(
                    self._unsubscribe, "SmnCancelSubscription"
                ),
            },
            not_offered,
            skip=1,
            encode=reply_of,
        )

    # --- topics ---------------------------------------------------------------------------------------------

    async def _create(self, call: Call) -> Answer:
        body = _body(call, b.CreateTopic, "SMN.0002")
        topic, new = await self._topics.create(
            call.project, body.name, body.display_name or "", body.enterprise_project_id or "0"
        )
        return 201 if new else 200, {"topic_urn": self._topics.urn(topic)}

    async def _list(self, call: Call) -> Answer:
        query = _query(call, b.ListTopics)
        found = [
            topic
            for topic in self._topics.of_project(call.project)
            if query.name in ("", topic.name)
            and query.topic_id in ("", topic.topic_id)
            and query.fuzzy_name in topic.name
            and query.fuzzy_display_name in topic.display_name
            and query.enterprise_project_id in ("", topic.enterprise_project_id)
        ]
        page = found[query.offset : query.offset + query.limit]
        return 200, {"topic_count": len(found), "topics": [self._shown(topic) for topic in page]}

    async def _show(self, call: Call) -> Answer:
        return 200, self._shown(self._topics.find(call.project, call.names[0]))

    async def _update(self, call: Call) -> Answer:
        body = _body(call, b.UpdateTopic, "SMN.0003")
        await self._topics.rename(call.project, call.names[0], body.display_name)
        return 200, {}

    async def _delete(self, call: Call) -> Answer:
        await self._topics.delete(call.project, call.names[0])
        return 200, {}

    async def _publish(self, call: Call) -> Answer:
        body = _body(call, b.Publish, "SMN.0009")
        body.check()
        message_id = await self._topics.publish(
            call.project,
            call.names[0],
            body.text(),
            subject=body.subject or "",
            attributes=body.attributes(),
            key=call.request.headers.get(b"idempotency-key", b"").decode("latin-1"),
            calls=body.calls,
        )
        return 200, {"message_id": message_id}

    # --- attributes -----------------------------------------------------------------------------------------

    async def _list_attributes(self, call: Call) -> Answer:
        topic, name = self._topics.find(call.project, call.names[0]), _query(call, b.ListAttributes).name
        if name:
            check_name(name)
        return 200, {"attributes": {one: topic.attributes.get(one, "") for one in SIZES if name in ("", one)}}

    async def _update_attribute(self, call: Call) -> Answer:
        urn, name = call.names
        self._topics.find(call.project, urn)
        value = _body(call, b.UpdateAttribute, "SMN.0046").value
        check_value(name, value)
        await self._topics.set_attributes(call.project, urn, {name: value})
        return 200, {}

    async def _delete_attribute(self, call: Call) -> Answer:
        urn, name = call.names
        check_name(name)
        await self._topics.set_attributes(call.project, urn, {name: ""})
        return 200, {}

    async def _delete_attributes(self, call: Call) -> Answer:
        await self._topics.set_attributes(call.project, call.names[0], dict.fromkeys(SIZES, ""))
        return 200, {}

    # --- subscriptions --------------------------------------------------------------------------------------

    async def _subscribe(self, call: Call) -> Answer:
        self._topics.find(call.project, call.names[0])
        hint = "Functions subscribe by an SMN trigger; other subscribers are not supported: use the destination WEBHOOK"
        raise bad_request(f"Parameter: Protocol is invalid. {hint}", "SMN.0011")

    async def _unsubscribe(self, call: Call) -> Answer:
        raise bad_request(
            "Parameter: SubscriptionUrn is invalid. Delete the SMN trigger of this subscription instead", "SMN.0014"
        )

    async def _list_of_topic(self, call: Call) -> Answer:
        topic = self._topics.find(call.project, call.names[0])
        return self._page([topic], _query(call, b.ListSubscriptions))

    async def _list_all(self, call: Call) -> Answer:
        return self._page(self._topics.of_project(call.project), _query(call, b.ListSubscriptions))

    def _page(self, topics: Sequence[Topic], query: b.ListSubscriptions) -> Answer:
        found = [(topic, one) for topic in topics for one in self._topics.subscribers(topic)]
        page = found[query.offset : query.offset + query.limit]
        return 200, {"subscription_count": len(found), "subscriptions": [self._subscription(*one) for one in page]}

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

    def _subscription(self, topic: Topic, listener: Listener) -> dict[str, Any]:
        urn = self._topics.urn(topic)
        return {
            "topic_urn": urn,
            "subscription_urn": f"{urn}:{listener.sink.trigger_id.replace('-', '')}",
            "protocol": b.PROTOCOLS[0],
            "endpoint": listener.sink.function,
            "owner": topic.project,
            "remark": "",
            "status": CONFIRMED,
            "filter_polices": [],
        }


def _body(call: Call, type_: type[T], code: str) -> T:
    return vendor_api.decode_body(call, type_, lambda problem: bad_request(f"Request error. {problem}", code))


def _query(call: Call, type_: type[T]) -> T:
    return vendor_api.decode_query(
        call.request,
        type_,
        lambda problem: bad_request(f"Parameter: Offset or limit is invalid. {problem}", "SMN.0015"),
    )
