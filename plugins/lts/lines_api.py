"""API by which clients send and read lines, at the vendor's paths. Sent lines are on disk before the reply."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from plugins._shared.vendor_api import INVOKE, READ, Answer, Call, Offer
from plugins.lts import bodies as b
from plugins.lts.groups import Groups, stream_name
from plugins.lts.lines import Item, Lines, Row, Written, encoded

#: Labels by which a sender describes itself, in the accepted spellings.
_HOST, _IP, _PATH = ("host_name", "hostName"), ("ip", "hostIP", "host_ip"), ("path", "pathFile", "path_file")
_LONGEST = 255  #: characters of such a label
_ACCEPTED = {"errorCode": "SVCSTG.ALS.200.200", "error_msg": "Report success.", "result": None}
STEP = 1 << 17  #: bytes of lines that are read at a time
SCANNED = 1 << 23  #: bytes of lines that are read for one page, so that a page takes a fraction of a second
READ_COST = 1 << 13  #: bytes that each read of a single row counts besides: small rows take as long as large ones
PLACES = 100_000  #: numbers of lines in one row; a row has less than ``lines.ROW`` bytes, and one line more


class Found(Struct, frozen=True, kw_only=True):
    number: int  #: of the line in its stream
    item: Item

    @property
    def labels(self) -> dict[str, Any]:
        item = self.item
        return {"hostName": item.host_name, "hostIP": item.ip, "pathFile": item.path, **item.labels}

    def shown(self) -> dict[str, Any]:
        item = self.item
        return {"content": item.message, "line_num": str(self.number), "time": item.time, "labels": self.labels}


class LinesApi:
    def __init__(self, groups: Groups, lines: Lines, *, labels: bool) -> None:
        self._groups, self._lines, self._labels = groups, lines, labels
        contents = "lts groups {log_group_id} streams {log_stream_id} tenant contents"
        self.offers = {
            f"POST v2 {contents}": Offer(self._accept, "LtsSendLogs", body=b.Contents, roles=INVOKE, data=True),
            f"POST v2 {contents} high-accuracy": Offer(
                self._accept, "LtsSendTimedLogs", body=b.TimedContents, roles=INVOKE, data=True
            ),
            "POST v2 groups {log_group_id} streams {log_stream_id} content query": Offer(
                self._search, "LtsListLogs", body=b.Search, roles=READ, data=True
            ),
        }

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
        stream = stream_name(call.project, group_id, stream_id)
        await self._lines.open(stream)
        found, complete, last = list[Found](), True, search.line_num or ""
        scan = self._newest_first(stream, search) if search.is_desc else self._oldest_first(stream, search)
        async for one in scan:
            if one is None or len(found) == search.limit:
                complete = False
                break
            last = str(one.number)
            if search.matches(one.item.message, one.item.time, one.labels):
                found.append(one)
        logs = [one.shown() for one in found]
        return 200, {"count": len(found), "logs": logs, "isQueryComplete": complete, "next_line_num": last}

    async def _oldest_first(self, stream: str, search: b.Search) -> AsyncIterator[Found | None]:
        """Yield the lines of a stream from the beginning of the search on; None if too many were read."""
        after, (begin, _), scanned = search.after, self._lines.span(stream), 0
        position = begin if after is None else max(begin, after // PLACES)
        if after is None:
            position = await self._lines.seek(stream, search.start)
        while rows := (await self._lines.read(stream, position, STEP))[0]:
            for number, row in rows:
                for one in _lines_of(number, row):
                    if after is None or one.number > after:
                        yield one
                scanned += row.size
            if scanned > SCANNED:
                yield None
            position = rows[-1][0] + 1

    async def _newest_first(self, stream: str, search: b.Search) -> AsyncIterator[Found | None]:
        before, (begin, end), scanned = search.after, self._lines.span(stream), 0
        position = end - 1 if before is None else min(end - 1, before // PLACES)
        while position >= begin:
            rows, _ = await self._lines.read(stream, position, 1)
            row = rows[0][1] if rows and rows[0][0] == position else None
            if row is not None:
                if row.at < search.start:  # older rows were received before the search begins
                    return
                for one in reversed(list(_lines_of(position, row))):
                    if before is None or one.number < before:
                        yield one
                scanned += row.size + READ_COST
            if scanned > SCANNED:
                yield None
            position -= 1


def _label(labels: Mapping[str, Any], names: Sequence[str]) -> str:
    found = next((labels[name] for name in names if name in labels), "")
    return found[:_LONGEST] if isinstance(found, str) else ""


def _lines_of(number: int, row: Row) -> Iterator[Found]:
    for place, item in enumerate(row.items):
        yield Found(number=number * PLACES + place, item=msgspec.json.decode(item, type=Item))
