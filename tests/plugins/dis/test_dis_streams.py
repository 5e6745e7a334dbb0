"""Embedded streams of DIS over their API at the vendor's paths."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from plugins.dis import plugin as dis
from plugins.dis.shape import LARGEST, Stream, evenly, scaled
from tests.doubles import ManualClock
from tests.support.streams import Dis, encoded
from tests.support.triggering import api_client, house


@asynccontextmanager
async def streams(folder: Path, **more: Any) -> AsyncIterator[Dis]:
    async with house(folder, [dis], **more) as place, api_client(place) as client:
        yield Dis(client)


async def test_records_come_back_in_order_with_numbers_and_times(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        puts = await client.put("a", "b", "c")
        cursor = (await client.cursor())["partition_cursor"]
        page = await client.get(cursor)

        assert [put["sequence_number"] for put in puts] == ["0", "1", "2"]
        assert {put["partition_id"] for put in puts} == {"shardId-0000000000"}
        first = page["records"][0]
        assert first | {"timestamp": 0} == {
            "partition_key": "a",
            "sequence_number": "0",
            "data": encoded("a"),
            "timestamp": 0,
            "timestamp_type": "CreateTime",
        }
        assert (await client.get(page["next_partition_cursor"]))["records"] == []


async def test_every_kind_of_cursor_begins_where_it_says_and_is_good_for_five_minutes(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with streams(tmp_path, clock=clock) as client:
        await client.create()
        for text in ("a", "b", "c"):
            clock.advance(10)
            await client.put(text)

        assert await client.texts("AT_SEQUENCE_NUMBER", starting__sequence__number=1) == ["b", "c"]
        assert await client.texts("AFTER_SEQUENCE_NUMBER", starting__sequence__number=1) == ["c"]
        assert await client.texts("AT_TIMESTAMP", timestamp=1_800_000_011_000) == ["b", "c"]
        assert await client.texts("AT_TIMESTAMP", timestamp=1_800_000_020_000) == ["b", "c"]
        assert await client.texts("TRIM_HORIZON") == ["a", "b", "c"]
        assert await client.texts("LATEST") == []
        cursor = (await client.cursor("LATEST"))["partition_cursor"]
        clock.advance(299)
        early = await client.get(cursor)
        clock.advance(2)
        assert (early["records"], (await client.get(cursor))["errorCode"]) == ([], "DIS.4225")


async def test_entries_go_where_they_name_or_their_key_leads(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create(partitions=4)
        [named] = await client.put("x", partition_id="shardId-0000000002")
        [hashed] = await client.put("x", explicit_hash_key=str(LARGEST))
        by_key = [(await client.put("x", partition_key="k"))[0]["partition_id"] for _ in range(3)]
        spread = {put["partition_id"] for put in await client.put(*map(str, range(50)))}

        assert (named["partition_id"], hashed["partition_id"]) == ("shardId-0000000002", "shardId-0000000003")
        assert len(set(by_key)) == 1
        assert len(spread) == 4


async def test_a_bad_entry_fails_alone(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        good = {"data": encoded("a"), "partition_key": "a"}
        entries = [good, {**good, "partition_id": "shardId-0000000009"}, {**good, "explicit_hash_key": "-1"}]
        body = (await client.ask("POST", "records", {"stream_name": "clicks", "records": [*entries, good]})).json()

        assert body["failed_record_count"] == 2
        assert [record["error_code"] for record in body["records"]] == [None, "DIS.4302", "DIS.4300", None]
        assert [record["sequence_number"] for record in body["records"]] == ["0", None, None, "1"]


async def test_a_read_is_bounded_by_bytes_but_gives_at_least_one(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        await client.put(*["x" * 1000] * 40)
        cursor = (await client.cursor())["partition_cursor"]
        sizes = []
        for most in (1, 2500, 20_000, 1_000_000):
            page = await client.get(cursor, max_fetch_bytes=most)
            sizes.append(len(page["records"]))
            cursor = page["next_partition_cursor"]

        assert sizes == [1, 2, 20, 17]


REFUSED: list[tuple[str, str, Any, str]] = [
    ("GET", "streams/none", None, "DIS.4301"),
    ("POST", "records", {"stream_name": "none", "records": [{"data": ""}]}, "DIS.4301"),
    ("POST", "records", {"stream_name": "clicks", "records": [{"data": "%"}]}, "DIS.4300"),
    ("POST", "records", {"stream_name": "clicks", "records": [{"data": "A" * (7 << 20)}]}, "DIS.4300"),
    ("POST", "streams", {"stream_name": "clicks", "partition_count": 1}, "DIS.4307"),
    ("POST", "streams", {"stream_name": "a/b", "partition_count": 1}, "DIS.4300"),
    ("POST", "streams", {"stream_name": "b", "partition_count": 51}, "DIS.4300"),
    ("POST", "streams", {"stream_name": "b", "partition_count": 1, "data_duration": 1}, "DIS.4300"),
    ("GET", "cursors?stream-name=clicks&partition-id=7", None, "DIS.4302"),
    ("GET", "cursors?stream-name=clicks&partition-id=0&starting-sequence-number=5", None, "DIS.4224"),
    ("GET", "cursors?stream-name=clicks&partition-id=0&cursor-type=SOME", None, "DIS.4300"),
    ("GET", "records?partition-cursor=garbage", None, "DIS.4300"),
    ("GET", "records?partition-cursor=lKH_AAAA", None, "DIS.4300"),
    ("GET", "apps/none", None, "DIS.4332"),
    ("GET", "streams?limit=0", None, "DIS.4300"),
    ("DELETE", "streams/none", None, "DIS.4301"),
]


async def test_refusals_have_the_codes_of_the_vendor(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        replies = [await client.ask(method, path, body) for method, path, body, _ in REFUSED]

        assert [reply.json()["errorCode"] for reply in replies] == [code for *_, code in REFUSED]
        assert {reply.status_code for reply in replies} == {400}


async def test_a_project_does_not_see_the_streams_of_another(tmp_path: Path) -> None:
    async with house(tmp_path, [dis]) as place, api_client(place) as http:
        mine, other = Dis(http, "a"), Dis(http, "b")
        await mine.create()
        cursor = (await mine.cursor())["partition_cursor"]

        assert (await other.ask("GET", "streams")).json()["stream_names"] == []
        assert (await other.get(cursor))["errorCode"] == "DIS.4301"


async def test_streams_are_listed_a_page_at_a_time(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        for name in ("c", "a", "b"):
            await client.create(name)
        first = (await client.ask("GET", "streams", limit=2)).json()
        rest = (await client.ask("GET", "streams", limit=2, start_stream_name="b")).json()

        assert (first["total_number"], first["stream_names"], first["has_more_streams"]) == (3, ["a", "b"], True)
        assert (rest["stream_names"], rest["has_more_streams"]) == (["c"], False)


async def test_what_is_older_than_the_retention_goes_and_its_numbers_are_not_used_again(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with streams(tmp_path, clock=clock) as client:
        await client.create()
        await client.put("old", "older")
    clock.advance(25 * 3600)
    async with streams(tmp_path, clock=clock) as client:
        before = await client.texts()
        gone = await client.cursor("AT_SEQUENCE_NUMBER", starting__sequence__number=0)
        [put] = await client.put("new")

        assert (before, await client.texts(), put["sequence_number"]) == ([], ["new"], "2")
        assert gone["errorCode"] == "DIS.4224"


async def test_no_record_goes_while_the_clock_is_in_doubt(tmp_path: Path) -> None:
    clock, strict = ManualClock(1_800_000_000.0), {"storage__clock_tolerance": 0.5}
    async with streams(tmp_path, clock=clock, **strict) as client:
        await client.create()
        await client.put("old")
    clock.advance(25 * 3600)
    async with streams(tmp_path, clock=clock, **strict) as client:
        assert await client.texts() == ["old"]
    clock.expiry.release()
    async with streams(tmp_path, clock=clock, storage__clock_tolerance=0) as client:
        assert await client.texts() == []


async def test_a_stream_of_the_same_name_is_another(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        await client.put("a")
        cursor = (await client.cursor())["partition_cursor"]
        await client.ask("DELETE", "streams/clicks")
        await client.create()

        assert await client.texts() == []
        assert (await client.get(cursor))["errorCode"] == "DIS.4301"


async def test_apps_keep_how_far_they_came(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create(partitions=2)
        await client.ask("POST", "apps", {"app_name": "reader"})
        place = {"app_name": "reader", "stream_name": "clicks", "partition_id": "shardId-0000000001"}
        before = (await client.ask("GET", "checkpoints", **place)).json()
        made = await client.ask(
            "POST", "checkpoints", {**place, "checkpoint_type": "LAST_READ", "sequence_number": "7"}
        )
        after = (await client.ask("GET", "checkpoints", **place)).json()
        state = (await client.ask("GET", "apps/reader/streams/clicks")).json()["partition_consuming_states"]

        assert (before["sequence_number"], made.status_code, after["sequence_number"]) == ("-1", 201, "7")
        assert [entry["sequence_number"] for entry in state] == ["-1", "7"]
        assert (await client.ask("GET", "apps/reader")).json()["commit_checkpoint_stream_names"] == ["clicks"]
        await client.ask("DELETE", "checkpoints", **place)
        assert (await client.ask("GET", "checkpoints", **place)).json()["sequence_number"] == "-1"
        assert (await client.ask("DELETE", "apps/reader")).status_code == 204
        assert (await client.ask("GET", "apps")).json()["apps"] == []


async def test_a_split_closes_the_parent_which_can_still_be_read(tmp_path: Path) -> None:
    async with streams(tmp_path) as client:
        await client.create()
        await client.put("a")
        await client.scale(2)
        shown = (await client.shown())["partitions"]
        [refused] = await client.put("b", partition_id="shardId-0000000000")
        [taken] = await client.put("b")

        assert [partition["status"] for partition in shown] == ["DELETED", "ACTIVE", "ACTIVE"]
        assert [partition.get("parent_partitions") for partition in shown] == [None, *["(shardId-0000000000)"] * 2]
        assert refused["error_code"] == "DIS.4302"
        assert taken["partition_id"] != "shardId-0000000000"
        assert await client.texts() == ["a"]


def test_however_it_is_scaled_each_hash_has_one_open_partition_and_nothing_is_closed_twice() -> None:
    chance = Random(5)
    stream = Stream(
        stream_id="s",
        project="p",
        name="n",
        created_at=0,
        modified_at=0,
        retention=24,
        stream_type="COMMON",
        data_type="BLOB",
        partitions=evenly(3),
    )
    for moment in range(1, 60):
        old, count = stream, chance.randint(1, 50)
        stream = scaled(stream, count, float(moment))
        edges = sorted((partition.low, partition.high) for partition in stream.open)

        assert len(edges) == count
        assert (edges[0][0], edges[-1][1]) == (0, LARGEST)
        assert all(left[1] + 1 == right[0] for left, right in pairwise(edges))
        kept = [(partition.number, partition.closed_at) for partition in old.partitions if not partition.open]
        assert set(kept) <= {(partition.number, partition.closed_at) for partition in stream.partitions}
        parents = {number for partition in stream.partitions[len(old.partitions) :] for number in partition.parents}
        assert parents == {partition.number for partition in old.open} - {partition.number for partition in stream.open}
