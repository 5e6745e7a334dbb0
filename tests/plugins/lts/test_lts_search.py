"""LTS: search in the lines of a stream whose rows are small."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest

from engine import PushRequest
from plugins._shared.vendor_api import Call
from plugins.lts import api, bodies
from plugins.lts.api import LtsApi
from plugins.lts.groups import Groups, stream_name
from plugins.lts.lines import STATES, Item, Lines, Row, Written, encoded
from plugins.lts.options import MIB
from tests.doubles import ManualClock, MemoryStore

ROWS = 40


class CountingLines(Lines):
    reads = 0

    async def read(self, stream: str, position: int, max_bytes: int) -> tuple[list[tuple[int, Row]], int]:
        self.reads += 1
        return await super().read(stream, position, max_bytes)


class AnyGroup:
    def stream(self, project: str, group_id: str, stream_id: str) -> None: ...


async def page(served: LtsApi, line_num: str) -> Any:
    body = {"start_time": 0, "end_time": 1 << 40, "is_desc": True, "keywords": "line 0.", "line_num": line_num}
    request = PushRequest(method="POST", path="", query="", headers={}, body=b"")
    [offer] = [offer for offer in served.table.offers.values() if offer.body is bodies.Search]
    status, reply = await offer.handler(Call("p", request), "g", "s", msgspec.convert(body, bodies.Search))
    assert status == 200
    return reply


async def test_a_search_through_small_rows_reads_a_bounded_number_of_them_for_a_page(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "SCANNED", 10 * api.READ_COST)
    lines = CountingLines(MemoryStore(), ManualClock(1.0).now, 16 * MIB)
    for number in range(ROWS):
        item = Item(message=f"line {number}.", time=1000, host_name="", ip="", path="", log_uid="", line_no=number)
        await lines.append([Written(stream=stream_name("p", "g", "s"), items=[*encoded([item])], function=STATES)])
    served, line_num, logs, reads = LtsApi(cast(Groups, AnyGroup()), lines, labels=False), "", [], []

    complete = False
    while not complete:
        lines.reads = 0
        reply = await page(served, line_num)
        complete, line_num = reply["isQueryComplete"], reply["next_line_num"]
        logs += reply["logs"]
        reads.append(lines.reads)

    assert max(reads) <= 11
    assert [entry["content"] for entry in logs] == ["line 0."]
