"""API by which clients send lines, at the vendor's paths. Lines are on disk before the request is answered."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from plugins._shared.vendor_api import INVOKE, Answer, Call, Offer, Table
from plugins.lts import bodies as b
from plugins.lts.groups import Groups, stream_name
from plugins.lts.items import Item, encoded
from plugins.lts.lines import Lines, Written
from plugins.lts.problems import not_offered

HEAD = "v2/lts"
#: Labels by which a sender describes itself, in the accepted spellings.
_HOST, _IP, _PATH = ("host_name", "hostName"), ("ip", "hostIP", "host_ip"), ("path", "pathFile", "path_file")
_LONGEST = 255  #: characters of such a label
_ACCEPTED = {"errorCode": "SVCSTG.ALS.200.200", "error_msg": "Report success.", "result": None}


class ReportsApi:
    def __init__(self, groups: Groups, lines: Lines, *, labels: bool) -> None:
        self._groups, self._lines, self._labels = groups, lines, labels
        contents = "lts groups {log_group_id} streams {log_stream_id} tenant contents"
        self.table = Table(
            {
                f"POST v2 {contents}": Offer(self._accept, "LtsSendLogs", body=b.Contents, roles=INVOKE, data=True),
                f"POST v2 {contents} high-accuracy": Offer(
                    self._accept_timed, "LtsSendTimedLogs", body=b.TimedContents, roles=INVOKE, data=True
                ),
            },
            not_offered,
            skip=1,
        )

    async def _accept(self, call: Call) -> Answer:
        return await self._store(call, b.decode_body(call, b.Contents))

    async def _accept_timed(self, call: Call) -> Answer:
        return await self._store(call, b.decode_body(call, b.TimedContents))

    async def _store(self, call: Call, body: b.Contents | b.TimedContents) -> Answer:
        group_id, stream_id, _ = call.names
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


def _label(labels: Mapping[str, Any], names: Sequence[str]) -> str:
    found = next((labels[name] for name in names if name in labels), "")
    return found[:_LONGEST] if isinstance(found, str) else ""
