"""API of log groups and of the streams in them, at the vendor's paths.

Refusals have the vendor's error codes. Other operations of the vendor's API (analysis, alarms, consumer groups) are
refused. The list of transfers is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from plugins._shared.vendor_api import READ, Answer, Call, Offer
from plugins.lts import bodies as b
from plugins.lts.groups import PROJECT_TAG, TAGS, Group, Groups, LogStream, TagChange, Tags, stream_name
from plugins.lts.lines import Lines
from plugins.lts.lines_api import LinesApi
from plugins.lts.problems import BAD_REQUEST, NO_GROUP, LtsProblem

TAGS_LIMIT = 64 << 10  #: bytes of a body


class LtsApi:
    def __init__(self, groups: Groups, lines: Lines, *, labels: bool) -> None:
        self._groups, self._lines = groups, lines
        group, stream = "groups {log_group_id}", "{log_stream_id}"
        self.table = b.table(
            {
                "POST v2 groups": Offer(
                    self._create_group, "LtsCreateLogGroup", body=b.CreateGroup, query=b.CreateGroupQuery, status=201
                ),
                "GET v2 groups": Offer(self._list_groups, "LtsListLogGroups", roles=READ),
                f"POST v2 {group}": Offer(self._change_group, "LtsUpdateLogGroup", body=b.Change),
                f"DELETE v2 {group}": Offer(self._delete_group, "LtsDeleteLogGroup", status=204),
                f"POST v2 {group} streams": Offer(
                    self._create_stream, "LtsCreateLogStream", body=b.CreateStream, status=201
                ),
                f"GET v2 {group} streams": Offer(self._list_streams, "LtsListLogStreamsOfGroup", roles=READ),
                f"DELETE v2 {group} streams {stream}": Offer(self._delete_stream, "LtsDeleteLogStream", status=204),
                f"PUT v2 {group} streams-ttl {stream}": Offer(self._change_stream, "LtsUpdateLogStream", body=b.Change),
                "GET v2 transfers": Offer(self._list_transfers, "LtsListTransfers", query=b.FindTransfers, roles=READ),
                "GET v2 log-streams": Offer(self._find_streams, "LtsListLogStreams", query=b.FindStreams, roles=READ),
                **LinesApi(groups, lines, labels=labels).offers,
            }
        )
        self.tags = b.table(
            {
                "POST v1 groups {log_group_id} tags action": Offer(
                    self._change_group_tags, "LtsCreateTags", body=b.ChangeTags
                ),
                "POST v1 topics {log_stream_id} tags action": Offer(
                    self._change_stream_tags, "LtsCreateStreamTags", body=b.ChangeTags
                ),
            }
        )

    # --- groups ---------------------------------------------------------------------------------------------

    async def _create_group(self, call: Call, body: b.CreateGroup, query: b.CreateGroupQuery) -> Answer:
        group = Group(
            id="",
            name=body.log_group_name,
            created_at=0.0,
            days=body.ttl_in_days,
            alias=body.log_group_name_alias or "",
            tags=_tags(body.tags) | ({PROJECT_TAG: query.enterprise_project_id} if query.enterprise_project_id else {}),
        )
        return 201, {"log_group_id": (await self._groups.create(call.project, group)).id}

    async def _list_groups(self, call: Call) -> Answer:
        return 200, {"log_groups": [_group(group) for group in self._groups.all(call.project)]}

    async def _change_group(self, call: Call, group_id: str, body: b.Change) -> Answer:
        return 200, _group(await self._groups.change(call.project, group_id, body.ttl_in_days))

    async def _delete_group(self, call: Call, group_id: str) -> Answer:
        group = await self._groups.delete(call.project, group_id)
        for stream in group.streams:
            await self._lines.drop(stream_name(call.project, group.id, stream.id))
        return 204, None

    # --- streams --------------------------------------------------------------------------------------------

    async def _create_stream(self, call: Call, group_id: str, body: b.CreateStream) -> Answer:
        stream = LogStream(
            id="",
            name=body.log_stream_name,
            created_at=0.0,
            days=body.ttl_in_days,
            alias=body.log_stream_name_alias or "",
            tags=_tags(body.tags),
        )
        return 201, {"log_stream_id": (await self._groups.create_stream(call.project, group_id, stream)).id}

    async def _list_streams(self, call: Call, group_id: str) -> Answer:
        group = self._groups.find(call.project, group_id)
        return 200, {"log_streams": [_stream(group, stream) for stream in group.streams]}

    async def _find_streams(self, call: Call, query: b.FindStreams) -> Answer:
        found = [
            {**_stream(group, stream), "log_group_id": group.id}
            for group in self._groups.all(call.project)
            for stream in group.streams
            if query.log_group_name in ("", group.name) and query.log_stream_name in ("", stream.name)
        ]
        return 200, {"log_streams": found}

    async def _change_stream(self, call: Call, group_id: str, stream_id: str, body: b.Change) -> Answer:
        stream = await self._groups.change_stream(call.project, group_id, stream_id, body.ttl_in_days)
        return 200, {
            "log_topic_id": stream.id,
            "log_topic_name": stream.name,
            "creation_time": int(stream.created_at * 1000),
            "ttl_in_days": body.ttl_in_days,
        }

    async def _delete_stream(self, call: Call, group_id: str, stream_id: str) -> Answer:
        await self._groups.delete_stream(call.project, group_id, stream_id)
        await self._lines.drop(stream_name(call.project, group_id, stream_id))
        return 204, None

    # --- tags -----------------------------------------------------------------------------------------------

    async def _change_group_tags(self, call: Call, group_id: str, body: b.ChangeTags) -> Answer:
        of_streams = [tag for tag in body.tags if tag.tags_to_streams_enable]
        change, change_streams = _change(body.action, body.tags), _change(body.action, of_streams)
        await self._groups.change_tags(call.project, group_id, change, change_streams)
        return 200, {}

    async def _change_stream_tags(self, call: Call, stream_id: str, body: b.ChangeTags) -> Answer:
        await self._groups.change_stream_tags(call.project, stream_id, _change(body.action, body.tags))
        return 200, {}

    # --- transfers ------------------------------------------------------------------------------------------

    async def _list_transfers(self, call: Call, query: b.FindTransfers) -> Answer:
        name = query.log_group_name
        if name and name not in {group.name for group in self._groups.all(call.project)}:
            raise LtsProblem(NO_GROUP, f"The log group does not exist: {name[:300]}")
        return 200, {"log_transfers": []}


def _tags(tags: Sequence[b.Tag] | None) -> dict[str, str]:
    return {tag.key: tag.value or "" for tag in tags or ()}


def _group(group: Group) -> dict[str, Any]:
    return {
        "log_group_id": group.id,
        "log_group_name": group.name,
        "log_group_name_alias": group.alias,
        "creation_time": int(group.created_at * 1000),
        "ttl_in_days": group.days,
        "tag": group.tags,
    }


def _stream(group: Group, stream: LogStream) -> dict[str, Any]:
    return {
        "log_stream_id": stream.id,
        "log_stream_name": stream.name,
        "log_stream_name_alias": stream.alias,
        "creation_time": int(stream.created_at * 1000),
        "ttl_in_days": group.days_of(stream),
        "tag": stream.tags,
        "filter_count": 0,
        "is_favorite": False,
        "whether_log_storage": True,
    }


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
