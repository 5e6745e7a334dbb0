"""API of log groups, of the streams in them, and of their lines, at the vendor's paths.

Refusals have the vendor's error codes. Other operations of the vendor's API (analysis, alarms, consumer groups) are
refused. The list of transfers is empty. Sent lines are on disk before the reply.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer
from plugins.lts import bodies as b
from plugins.lts.groups import PROJECT_TAG, TAGS, Group, Groups, LogStream, TagChange, Tags, stream_name
from plugins.lts.lines import Item, Lines, Row, Written, encoded
from plugins.lts.problems import BAD_REQUEST, NO_GROUP, LtsProblem

TAGS_LIMIT = 64 << 10  #: bytes of a body
_STORED = ("hostName", "hostIP", "pathFile")  #: labels that lines have also without ``plugins.lts.labels``
#: Labels by which a sender describes itself, in the accepted spellings.
_HOST, _IP, _PATH = ("host_name", "hostName"), ("ip", "hostIP", "host_ip"), ("path", "pathFile", "path_file")
_LONGEST = 255  #: characters of such a label
_ACCEPTED = {"errorCode": "SVCSTG.ALS.200.200", "error_msg": "Report success.", "result": None}
STEP = 1 << 17  #: bytes of lines that are read at a time
SCANNED = 1 << 23  #: bytes of lines that are read for one page, so that a page takes a fraction of a second
READ_COST = 1 << 13  #: bytes that each read of a single row counts besides: small rows take as long as large ones
PLACES = 100_000  #: numbers of lines in one row; a row has one line, or at most ``lines.ROW`` bytes


class NumberedLine(Struct, frozen=True, kw_only=True):
    number: int  #: of the line in its stream
    item: Item

    @property
    def labels(self) -> dict[str, Any]:
        item = self.item
        return {"hostName": item.host_name, "hostIP": item.ip, "pathFile": item.path, **item.labels}

    def shown(self) -> dict[str, Any]:
        item = self.item
        return {"content": item.message, "line_num": str(self.number), "time": item.time, "labels": self.labels}


class LtsApi:
    def __init__(self, groups: Groups, lines: Lines, *, labels: bool) -> None:
        self._groups, self._lines, self._labels = groups, lines, labels
        contents = "lts groups {log_group_id} streams {log_stream_id} tenant contents"
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
                f"POST v2 {contents}": Offer(self._accept, "LtsSendLogs", body=b.Contents, roles=INVOKE, data=True),
                f"POST v2 {contents} high-accuracy": Offer(
                    self._accept, "LtsSendTimedLogs", body=b.TimedContents, roles=INVOKE, data=True
                ),
                f"POST v2 {group} streams {stream} content query": Offer(
                    self._search, "LtsListLogs", body=b.Search, roles=READ, data=True
                ),
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
        streams = [
            {**_stream(group, stream), "log_group_id": group.id}
            for group in self._groups.all(call.project)
            for stream in group.streams
            if query.log_group_name in ("", group.name) and query.log_stream_name in ("", stream.name)
        ]
        return 200, {"log_streams": streams}

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

    # --- sending --------------------------------------------------------------------------------------------

    async def _accept(self, call: Call, group_id: str, stream_id: str, body: b.Contents | b.TimedContents) -> Answer:
        self._groups.stream(call.project, group_id, stream_id)
        items = list(encoded(self._items(body, call.request.client)))
        await self._lines.append([Written(stream=stream_name(call.project, group_id, stream_id), items=items)])
        return 200, _ACCEPTED

    def _items(self, body: b.Contents | b.TimedContents, client: str) -> list[Item]:
        labels, uid = b.checked_labels(body.labels), str(uuid.uuid4())
        host, ip, path = (_label(labels, names) for names in (_HOST, _IP, _PATH))
        return [
            Item(
                message=text,
                time=moment // 1_000_000,
                host_name=host,
                ip=ip or client,
                path=path,
                log_uid=uid,
                line_no=number,
                labels=labels if self._labels else {},
            )
            for number, (moment, text) in enumerate(body.timed(), 1)
        ]

    # --- reading --------------------------------------------------------------------------------------------

    async def _search(self, call: Call, group_id: str, stream_id: str, search: b.Search) -> Answer:
        """Return lines with a time in the range, in the order in which they were received, or newest first.

        A page that ends before all lines were read has ``isQueryComplete`` false. The next page begins behind the
        line that the request names as ``line_num``: ``next_line_num`` of this page.
        """
        self._groups.stream(call.project, group_id, stream_id)
        if not self._labels and (other := {*(search.labels or {})} - {*_STORED}):
            hint = f"set plugins.lts.labels, or search by {', '.join(_STORED)}"
            raise LtsProblem(BAD_REQUEST, f"lines are stored without the label {min(other)[:100]}: {hint}")
        stream = stream_name(call.project, group_id, stream_id)
        await self._lines.open(stream)
        matching, complete, last = list[NumberedLine](), True, search.line_num or ""
        scan = self._newest_first(stream, search) if search.is_desc else self._oldest_first(stream, search)
        async for line in scan:
            if line is None or len(matching) == search.limit:
                complete = False
                break
            last = str(line.number)
            if search.matches(line.item.message, line.item.time, line.labels):
                matching.append(line)
        logs = [line.shown() for line in matching]
        return 200, {"count": len(matching), "logs": logs, "isQueryComplete": complete, "next_line_num": last}

    async def _oldest_first(self, stream: str, search: b.Search) -> AsyncIterator[NumberedLine | None]:
        """Yield the lines of a stream from the beginning of the search on; None if too many were read."""
        after, (begin, _), scanned = search.after, self._lines.span(stream), 0
        position = begin if after is None else max(begin, after // PLACES)
        if after is None:
            position = await self._lines.seek(stream, search.start)
        while rows := (await self._lines.read(stream, position, STEP))[0]:
            for number, row in rows:
                for line in _lines_of(number, row):
                    if after is None or line.number > after:
                        yield line
                scanned += row.size
            if scanned > SCANNED:
                yield None
            position = rows[-1][0] + 1

    async def _newest_first(self, stream: str, search: b.Search) -> AsyncIterator[NumberedLine | None]:
        before, (begin, end), scanned = search.after, self._lines.span(stream), 0
        position = end - 1 if before is None else min(end - 1, before // PLACES)
        while position >= begin:
            rows, _ = await self._lines.read(stream, position, 1)
            row = rows[0][1] if rows and rows[0][0] == position else None
            if row is not None:
                if row.at < search.start:  # older rows were received before the search begins
                    return
                for line in reversed(list(_lines_of(position, row))):
                    if before is None or line.number < before:
                        yield line
                scanned += row.size + READ_COST
            if scanned > SCANNED:
                yield None
            position -= 1


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


def _label(labels: Mapping[str, Any], names: Sequence[str]) -> str:
    value = next((labels[name] for name in names if name in labels), "")
    return value[:_LONGEST] if isinstance(value, str) else ""


def _lines_of(number: int, row: Row) -> Iterator[NumberedLine]:
    for place, item in enumerate(row.items):
        yield NumberedLine(number=number * PLACES + place, item=msgspec.json.decode(item, type=Item))
