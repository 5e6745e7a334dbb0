"""LTS: lines that are sent, batched and passed to functions in the documented form."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
import structlog.testing
from cramjam import snappy
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from engine import PushRequest, Unavailable, project_log_target
from engine.resources.bound_trigger import BoundTrigger
from plugins._shared.vendor_api import Answer, Call, Offer
from plugins.lts import bodies, service
from plugins.lts import plugin as lts
from plugins.lts.lines import PIECE, STATES, Item, Lines, Written, encoded, joined
from plugins.lts.options import MIB
from plugins.lts.problems import LtsProblem
from plugins.lts.service import MAX_WAIT, Readers
from tests.doubles import ManualClock, MemoryStore
from tests.doubles.writes import MemoryWrites
from tests.support.http_app import PROJECT
from tests.support.logs import Lts, messages, told
from tests.support.logs import items as items_of
from tests.support.triggering import House, api_client, house, until

DAY = 86_400
PACK: dict[str, Callable[[bytes], bytes]] = {
    "GZIP": gzip.compress,
    "snappy": lambda body: bytes(snappy.compress_raw(body)),
}


class Scene(Struct, kw_only=True):
    place: House
    client: Lts

    async def trigger(self, **options: str) -> BoundTrigger:
        """Create a trigger and return it once its source runs."""
        trigger = await self.place.create("LTS", **{**self.client.options, **options})
        await until(lambda: self.place.state(trigger).state == "running")
        return trigger

    async def has(self, *texts: str) -> list[Any]:
        """Return the events as soon as they carry exactly these texts."""
        while sorted(messages(events := await self.place.events())) != sorted(texts):
            assert len(messages(events)) <= len(texts), messages(events)
            await anyio.sleep(0.005)
        return events

    async def rows(self) -> int:
        """Count the stored lines."""
        store = self.place.engine.plugins.of(lts).store
        return len(await store.scan("lines"))


@asynccontextmanager
async def scene(folder: Path, *, made: bool = False, **more: Any) -> AsyncIterator[Scene]:
    """Open an engine with a stream. ``made``: the stream exists already."""
    settings = {"plugins__lts__batch_wait": 0.01, **more}
    async with house(folder, [lts], **settings) as place, api_client(place) as client:
        opened = Scene(place=place, client=Lts(client))
        if not made:
            await opened.client.create()
        yield opened


# --- events -------------------------------------------------------------------------------------------------


async def test_an_event_is_as_documented(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        await it.client.send("one", "tw\u00f6", labels={"host_name": "h", "path": "/var/log/a", "other": 1})
        [event] = await it.has("one", "tw\u00f6")

        content = told(event)
        lines = json.loads(content.pop("logs"))
        assert list(event) == ["lts"]
        assert list(event["lts"]) == ["data"]
        assert content == {
            "owner": PROJECT,
            "log_group_id": it.client.group,
            "log_topic_id": it.client.stream,
        }
        uid = lines[0]["log_uid"]
        place = {"host_name": "h", "ip": "127.0.0.1", "path": "/var/log/a", "log_uid": uid, "time": 1_586_850_540_000}
        assert lines == [{"message": "one", "line_no": 1, **place}, {"message": "tw\u00f6", "line_no": 2, **place}]


async def test_logs_may_be_an_array_and_labels_be_told(tmp_path: Path) -> None:
    async with scene(tmp_path, plugins__lts__logs="array", plugins__lts__labels=True) as it:
        await it.trigger()
        await it.client.send("one", labels={"user_tag": "a"})
        [event] = await it.has("one")

        assert [line["labels"] for line in told(event)["logs"]] == [{"user_tag": "a"}]


async def test_lines_may_have_times_of_their_own(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        contents = [
            {"log_time_ns": "1586850540000000000", "log": "a"},
            {"log_time_ns": 1_586_850_541_000_000_008, "log": "b"},
        ]
        reply = await it.client.ask("POST", f"{it.client.path}/high-accuracy", {"contents": contents, "labels": {}})
        [event] = await it.has("a", "b")

        assert reply.json() == {"errorCode": "SVCSTG.ALS.200.200", "error_msg": "Report success.", "result": None}
        assert [line["time"] for line in items_of(event)] == [1_586_850_540_000, 1_586_850_541_000]


async def test_more_than_75_kb_are_told_in_pieces(tmp_path: Path) -> None:
    lines = [f"{number} ".ljust(400, "x") for number in range(500)]
    async with scene(tmp_path, plugins__lts__batch_size=MIB) as it:
        await it.trigger()
        await it.client.send(*lines)
        events = await it.has(*lines)

        assert messages(events) == lines
        sizes = [len(told(event)["logs"]) for event in events]
        assert max(sizes) <= PIECE
        assert min(sizes[:-1]) > PIECE - 1000


@settings(max_examples=20)
@given(st.text(min_size=1, max_size=9).map(lambda text: text * 20_000))
def test_a_line_that_is_too_long_comes_in_parts(text: str) -> None:
    line = Item(message=text, time=0, host_name="h", ip="", path="", log_uid="u", line_no=1)
    pieces = list(joined(encoded([line])))
    parts = [item for piece in pieces for item in json.loads(piece)]

    assert "".join(part["message"] for part in parts) == text
    assert max(len(piece) for piece in pieces) <= PIECE
    assert {(part["log_uid"], part["line_no"]) for part in parts} == {("u", 1)}


# --- batches ------------------------------------------------------------------------------------------------


async def test_lines_are_gathered_until_they_are_enough(tmp_path: Path) -> None:
    async with scene(tmp_path, plugins__lts__batch_wait=300, plugins__lts__batch_size=2000) as it:
        await it.trigger()
        for number in range(3):
            await it.client.send(str(number))
        before = await it.place.events()
        await it.client.send("x" * 2000)
        events = await it.has("0", "1", "2", "x" * 2000)

        assert (before, len(events)) == ([], 1)


async def test_a_new_trigger_takes_what_comes_after_it(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        await it.client.send("before")
        clock.advance(1)
        await it.trigger()
        await it.client.send("a")
        [event] = await it.has("a")

        assert messages([event]) == ["a"]


async def test_a_trigger_of_a_stream_that_nobody_made_says_so(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        trigger = await it.trigger(log_topic_id="odd")
        mine = await it.trigger()

        assert "log_config" in it.place.state(trigger).problem
        assert it.place.state(mine).problem == ""


# --- bodies -------------------------------------------------------------------------------------------------


async def test_bodies_may_be_packed(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.trigger()
        for encoding, pack in PACK.items():
            body = pack(json.dumps({"log_time_ns": 1, "contents": [encoding]}).encode())
            sent = await it.client.ask("POST", it.client.path, content=body, headers={"content-encoding": encoding})
            assert sent.status_code == 200, sent.text

        await it.has(*PACK)


@pytest.mark.parametrize(
    ("encoding", "body", "problem"),
    [
        ("gzip", gzip.compress(b" " * (bodies.LIMIT + 1)), "when it is unpacked"),
        ("gzip", gzip.compress(b"{}" * 100, mtime=0)[:-9], "cut short"),
        ("gzip", b"plain", "not valid gzip"),
        ("snappy", bytes(snappy.compress_raw(b" " * (bodies.LIMIT + 1))), "when it is unpacked"),
        ("snappy", b"\xff\xff", "not a valid snappy"),
        ("br", b"x", "gzip or snappy"),
        ("", b"no json", "malformed"),
        ("", b'{"contents": ["a"]}', "log_time_ns"),
        ("", b'{"log_time_ns": "now", "contents": ["a"]}', "log_time_ns"),
        ("", b'{"log_time_ns": 1, "contents": []}', "contents"),
        ("", b'{"log_time_ns": 1, "contents": [5]}', "contents[0]"),
        ("", json.dumps({"log_time_ns": 1, "contents": ["a"], "labels": {"a": "x" * 9000}}).encode(), "labels"),
    ],
)
async def test_what_cannot_be_read_is_refused_with_a_reason(encoding: str, body: bytes, problem: str) -> None:
    async def accept(call: Call, body: bodies.Contents) -> Answer:
        bodies.checked_labels(body.labels)
        return 200, None

    table = bodies.table({"POST v2 lines": Offer(accept, "Accept", body=bodies.Contents)})
    headers = {b"content-encoding": encoding.encode()}
    reply = await table.answer(PushRequest(method="POST", path="/v2/p/lines", query="", headers=headers, body=body))

    refused = json.loads(reply.body)
    assert (reply.status, refused["error_code"]) == (400, "LTS.0009")
    assert problem in refused["error_msg"]


def test_snappy_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cramjam", None)
    with pytest.raises(LtsProblem, match=r"pip install '.\[lts\]'"):
        bodies.unpacked(
            PushRequest(method="POST", path="", query="", headers={b"content-encoding": b"snappy"}, body=b"x")
        )


FROM_TO = {"start_time": 0, "end_time": 1}


async def test_refusals_have_the_codes_of_the_vendor(tmp_path: Path) -> None:
    own = project_log_target(PROJECT).group_id
    line = {"log_time_ns": 1, "contents": ["a"]}
    async with scene(tmp_path) as it:
        group = f"groups/{it.client.group}"
        for method, path, body, status, code in (
            ("POST", "groups", {"log_group_name": "app", "ttl_in_days": 1}, 400, "LTS.0101"),
            ("POST", "groups", {"log_group_name": "new", "ttl_in_days": 366}, 400, "LTS.0009"),
            ("POST", f"{group}/streams", {"log_stream_name": "web"}, 400, "LTS.0205"),
            ("POST", "groups/odd/streams", {"log_stream_name": "a"}, 400, "LTS.0201"),
            ("DELETE", f"{group}/streams/odd", None, 400, "LTS.0208"),
            ("DELETE", f"groups/{own}", None, 400, "LTS.0009"),
            ("POST", f"lts/{group}/streams/odd/tenant/contents", line, 400, "LTS.0208"),
            ("POST", f"{group}/streams/s/content/query", {}, 400, "LTS.0009"),
            (
                "POST",
                f"{group}/streams/{it.client.stream}/content/query",
                {**FROM_TO, "labels": {"team": "a"}},
                400,
                "LTS.0009",
            ),
            (
                "POST",
                f"{group}/streams/{it.client.stream}/content/query",
                {**FROM_TO, "labels": {"hostName": "a"}},
                200,
                None,
            ),
            ("POST", f"{group}/streams/s/charts/query", {}, 404, "LTS.0009"),
        ):
            refused = await it.client.ask(method, path, body)
            assert (refused.status_code, refused.json().get("error_code")) == (status, code), path


# --- retention ----------------------------------------------------------------------------------------------


async def test_groups_and_streams_outlive_the_engine_and_deleted_ones_are_gone(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.send("kept")
        kept = it.client.stream
        await it.client.create("other")
        await it.client.send("gone")
        await it.client.ask("DELETE", f"groups/{it.client.group}")
        store = it.place.engine.plugins.of(lts).store
        rows = [row for _, row in await store.scan("lines")]
    async with scene(tmp_path, made=True) as it:
        listed = (await it.client.ask("GET", "log-streams?log_group_name=app")).json()["log_streams"]
        groups = (await it.client.ask("GET", "groups")).json()["log_groups"]

        assert [(b"kept" in row, b"gone" in row) for row in rows if len(row) > 20] == [(True, False)]
        assert [(stream["log_stream_id"], stream["ttl_in_days"]) for stream in listed] == [(kept, 7)]
        assert [group["log_group_name"] for group in groups] == ["functiond", "app"]


async def test_lines_that_no_room_is_left_for_are_refused_until_a_function_takes_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "SETTLED", 0.0)
    monkeypatch.setattr(service, "CALM", 0.0)
    line = "x" * 1_000_000
    async with scene(tmp_path, plugins__lts__size=16 * MIB, queue__function_rows=1) as one:
        trigger = await one.trigger()
        replies = [await one.client.try_to_send(line) for _ in range(19)]
        await until(lambda: "backlog" in one.place.state(trigger).problem)
        full = replies[-1]
        for key in await one.place.keys():
            await one.place.engine.dispatcher.cancel(key)
        while (await one.client.try_to_send("at last")).status_code == 429:  # noqa: ASYNC110  (no event for free space)
            await anyio.sleep(0.01)

        assert {reply.status_code for reply in replies} == {200, 429}
        assert (full.status_code, full.headers["retry-after"]) == (429, "5")
        assert "plugins.lts.size" in full.json()["error_msg"]


async def test_what_is_older_than_its_stream_keeps_it_goes(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        for text in ("a", "b", "c"):
            await it.client.send(text)
        await it.client.ask("PUT", f"groups/{it.client.group}/streams-ttl/{it.client.stream}", {"ttl_in_days": 2})
        clock.advance(DAY)
        await it.client.send("d")
        clock.advance(DAY + 1)
    async with scene(tmp_path, made=True, clock=clock) as it:
        while await it.rows() > 1:  # noqa: ASYNC110  (no event for it)
            await anyio.sleep(0.005)

        assert await it.rows() == 1


async def test_lines_stay_while_the_clock_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps, expire = list[int](), Lines.expire

    async def swept(lines: Lines, stream: str, moment: int) -> None:
        await expire(lines, stream, moment)
        sweeps.append(moment)

    monkeypatch.setattr(service, "SWEEP", 0.01)
    monkeypatch.setattr(Lines, "expire", swept)
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        for text in ("a", "b", "c"):
            await it.client.send(text)
        clock.advance(3650 * DAY)
        done = len(sweeps) + 3
        while len(sweeps) < done:  # noqa: ASYNC110  (no event for it)
            await anyio.sleep(0.005)
        kept = await it.rows()
        await it.place.engine.clock_guard.accept()
        while await it.rows() > 1:  # noqa: ASYNC110  (the last line stays; no event for it)
            await anyio.sleep(0.005)

        assert kept == 3


async def test_lines_that_were_kept_too_short_are_lost_aloud(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        trigger = await it.trigger()
        client = it.client
        await client.send("a")
        await it.has("a")
        await it.place.update(trigger, status="DISABLED")
        await client.send("b")
        clock.advance(8 * DAY)
        await client.send("c")
    async with scene(tmp_path, made=True, clock=clock) as it:
        while await it.rows() > 1:  # noqa: ASYNC110  (no event for it)
            await anyio.sleep(0.005)
        with structlog.testing.capture_logs() as logs:
            await it.place.update(trigger, status="ACTIVE")
            await it.has("a", "c")

        losses = [line for line in logs if line["event"] == "events lost"]
        assert [(line["trigger"], line["events"]) for line in losses] == [(trigger.id, 1)]
        assert it.place.state(trigger).problem == "1 lines of the stream were deleted before they were read"


async def test_a_disabled_trigger_reads_all_lines_that_follow_the_deletion_of_its_stream(tmp_path: Path) -> None:
    async def write(place: House, *texts: str) -> None:
        written = [Item(message=t, time=0, host_name="", ip="", path="", log_uid="", line_no=1) for t in texts]
        lines: Lines = cast("Any", place.engine.plugins.of(lts).service).lines
        for item in encoded(written):
            await lines.append([Written(stream=f"{PROJECT}/{group}/{stream}", items=[item], function="default:other")])

    async with scene(tmp_path) as it:
        group, stream = it.client.group, it.client.stream
        trigger = await it.trigger()
        await write(it.place, "a", "b", "c")
        await it.has("a", "b", "c")
        await it.place.update(trigger, status="DISABLED")
        await it.client.ask("DELETE", f"groups/{group}/streams/{stream}")
    async with scene(tmp_path, made=True) as it:
        await write(it.place, "d", "e")
        await it.place.update(trigger, status="ACTIVE")

        await it.has("a", "b", "c", "d", "e")
        assert it.place.state(trigger).lost == 0


def test_lines_are_kept_for_the_slowest_trigger_and_for_a_while_if_it_stops() -> None:
    clock = ManualClock(0.0)
    readers = Readers(clock.now)
    with readers.reading("fast", "s", "f") as fast:
        with readers.reading("slow", "s", "g") as slow:
            fast.position, slow.position = 9, 3
            both = readers.needed("s")
        stopped = readers.needed("s")
        clock.advance(MAX_WAIT)

        assert (both, stopped, readers.needed("s"), readers.needed("another")) == (3, 3, 9, None)


async def test_what_the_disk_refuses_takes_no_room() -> None:
    writes, size = MemoryWrites(), 5 * MIB
    writes.fail("the disk refuses")
    store = MemoryStore(writes)
    lines = Lines(store, ManualClock(0.0).now, 16 * MIB)
    for _ in range(9):
        with pytest.raises(Unavailable):
            await lines.append([Written(stream="s", items=[b"x" * size])])
    writes.heal()
    await lines.append([Written(stream="s", items=[b"x" * size])])

    assert (lines.size, lines.end("s"), len(await store.scan("lines"))) == (size, size, 1)


async def test_the_newer_half_of_states_stays_when_room_is_made() -> None:
    store = MemoryStore()
    lines = Lines(store, ManualClock(0.0).now, 1000)
    for number in range(8):
        await lines.append([Written(stream="s", items=[b"%080d" % number], function=STATES)])
        await lines.append([Written(stream="other", items=[b"%010d" % number])])

    await lines.make_room(lambda stream: None)

    states, _ = await lines.read("s", 0, 1000)
    assert [int(item) for _, row in states for item in row.items] == [4, 5, 6, 7]
    assert lines.span("s") == (4, 8)
    assert lines.span("other") == (8, 8)
    assert (
        len(await store.scan("lines", after="other/", until="other0")) == 1
    )  # the last row stays on disk for its number
