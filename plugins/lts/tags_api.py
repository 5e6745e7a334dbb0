"""API of the tags of log groups and streams, at the vendor's paths."""

from __future__ import annotations

from collections.abc import Sequence

from plugins._shared.vendor_api import Answer, Call, Offer, Table
from plugins.lts import bodies as b
from plugins.lts.groups import PROJECT_TAG, TAGS, Groups, TagChange, Tags
from plugins.lts.problems import BAD_REQUEST, LtsProblem, not_offered

TAGS_HEADS = ("v1/groups", "v1/topics")
TAGS_LIMIT = 64 << 10  #: bytes of a body


class TagsApi:
    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self.table = Table(
            {
                "POST v1 groups {log_group_id} tags action": Offer(
                    self._change_group, "LtsCreateTags", body=b.ChangeTags
                ),
                "POST v1 topics {log_stream_id} tags action": Offer(
                    self._change_stream, "LtsCreateStreamTags", body=b.ChangeTags
                ),
            },
            not_offered,
        )

    async def _change_group(self, call: Call) -> Answer:
        body = b.decode_body(call, b.ChangeTags)
        of_streams = [tag for tag in body.tags if tag.tags_to_streams_enable]
        change, change_streams = _change(body.action, body.tags), _change(body.action, of_streams)
        await self._groups.change_tags(call.project, call.names[0], change, change_streams)
        return 200, {}

    async def _change_stream(self, call: Call) -> Answer:
        body = b.decode_body(call, b.ChangeTags)
        await self._groups.change_stream_tags(call.project, call.names[0], _change(body.action, body.tags))
        return 200, {}


def _change(action: str, tags: Sequence[b.ActionTag]) -> TagChange:
    """Return the change of tags that a request asks for. The change raises LtsProblem if there would be too many."""
    given = {tag.key: tag.value or "" for tag in tags}
    if len(given) < len(tags):
        raise LtsProblem(BAD_REQUEST, "Failed to validate the request: a key may be given once")

    def create(old: Tags) -> Tags:
        new = {**old, **given}
        if len(new.keys() - {PROJECT_TAG}) > TAGS:
            raise LtsProblem(BAD_REQUEST, f"A log group or stream may have {TAGS} tags")
        return new

    def delete(old: Tags) -> Tags:
        return {key: value for key, value in old.items() if key not in given}

    return create if action == "create" else delete
