"""API of the tags of topics, at the vendor's paths.

A topic is given by its ``topic_id``, or by its name if the header ``X-SMN-RESOURCEID-TYPE`` is ``name``, as Terraform
sends it.
"""

from __future__ import annotations

from typing import TypeVar

from plugins._shared import vendor_api
from plugins._shared.vendor_api import READ, Answer, Call, Offer, Table
from plugins.smn import bodies as b
from plugins.smn.problems import bad_request, no_topic, not_offered
from plugins.smn.topics import Topic, Topics

T = TypeVar("T")
Tags = dict[str, str]

TAGS_HEAD = "v2/smn_topic"
TAGS_LIMIT = 64 << 10  #: bytes of a body


class TagsApi:
    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        tags = "smn_topic {resource_id} tags"
        self.table = Table(
            {
                f"GET v2 {tags}": Offer(self._list, "SmnListResourceTags", roles=READ),
                f"POST v2 {tags}": Offer(self._create, "SmnCreateResourceTag", body=b.CreateTag, status=204),
                f"POST v2 {tags} action": Offer(
                    self._change, "SmnBatchCreateOrDeleteResourceTags", body=b.ChangeTags, status=204
                ),
                f"DELETE v2 {tags} {{key}}": Offer(self._delete, "SmnDeleteResourceTag", status=204),
                "GET v2 smn_topic tags": Offer(self._list_all, "SmnListProjectTags", roles=READ),
            },
            not_offered,
        )

    async def _list(self, call: Call) -> Answer:
        tags = sorted(self._topic(call).tags.items())
        return 200, {"tags": [{"key": key, "value": value} for key, value in tags]}

    async def _list_all(self, call: Call) -> Answer:
        values: dict[str, set[str]] = {}
        for topic in self._topics.of_project(call.project):
            for key, value in topic.tags.items():
                values.setdefault(key, set()).add(value)
        return 200, {"tags": [{"key": key, "values": sorted(found)} for key, found in sorted(values.items())]}

    async def _create(self, call: Call) -> Answer:
        return await self._add(call, [_body(call, b.CreateTag).tag])

    async def _change(self, call: Call) -> Answer:
        body = _body(call, b.ChangeTags)
        if body.action == "create":
            return await self._add(call, body.tags)
        return await self._remove(call, {tag.key for tag in body.tags})

    async def _delete(self, call: Call) -> Answer:
        return await self._remove(call, {call.names[1]})

    async def _add(self, call: Call, tags: list[b.Tag]) -> Answer:
        added = {tag.key: tag.value or "" for tag in tags}
        if len(added) < len(tags):
            raise bad_request("Parameter: tag is invalid. A key may be given once", "SMN.0038")

        def change(old: Tags) -> Tags:
            new = {**old, **added}
            if len(new) > b.TAGS:
                raise bad_request(f"Parameter: tag is invalid. A topic may have {b.TAGS} tags", "SMN.0038")
            return new

        await self._topics.change_tags(call.project, self._topics.urn(self._topic(call)), change)
        return 204, None

    async def _remove(self, call: Call, keys: set[str]) -> Answer:
        def change(old: Tags) -> Tags:
            return {key: value for key, value in old.items() if key not in keys}

        await self._topics.change_tags(call.project, self._topics.urn(self._topic(call)), change)
        return 204, None

    def _topic(self, call: Call) -> Topic:
        by_name = call.request.headers.get(b"x-smn-resourceid-type") == b"name"
        for topic in self._topics.of_project(call.project):
            if call.names[0] == (topic.name if by_name else topic.topic_id):
                return topic
        raise no_topic(call.names[0])


def _body(call: Call, type_: type[T]) -> T:
    return vendor_api.decode_body(
        call, type_, lambda problem: bad_request(f"Parameter: tag is invalid. {problem}", "SMN.0038")
    )
