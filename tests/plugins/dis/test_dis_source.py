"""DIS source on the embedded streams: woken by new records, reads partitions in order, resumes at its checkpoint."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Struct

from engine.resources.bound_trigger import BoundTrigger
from plugins._shared.rows import RowLogs
from plugins.dis import plugin as dis
from tests.doubles import ManualClock
from tests.support.streams import Dis, encoded
from tests.support.triggering import House, api_client, house, until

OPTIONS: dict[str, Any] = {
    "stream_name": "clicks",
    "sharditerator_type": "TRIM_HORIZON",
    "polling_interval": 60,  # the embedded streams wake the source without this interval
    "polling_unit": "s",
    "is_serial": "false",
}


class Scene(Struct, kw_only=True):
    place: House
    client: Dis

    async def trigger(self, **options: Any) -> BoundTrigger:
        return await self.place.create("DIS", **{**OPTIONS, **options})

    async def texts(self, *, part: str = "") -> list[str]:
        """Return the data of all records that called the function, in the order of acceptance."""
        return [
            base64.b64decode(record["data"]).decode()
            for event in await self.place.events()
            for record in event["Message"]["records"]
            if part in event["ShardID"]
        ]

    async def has(self, *texts: str) -> None:
        while sorted(read := await self.texts()) != sorted(texts):
            assert len(read) <= len(texts), read
            await anyio.sleep(0.005)

    async def chances(self) -> None:
        """Give a source that does not wait enough time to read on."""
        for _ in range(5):
            await self.client.texts()

    async def end(self, number: int) -> None:
        """End the event with this number in the order of acceptance."""
        assert await self.place.engine.dispatcher.cancel((await self.place.keys())[number])


@asynccontextmanager
async def scene(folder: Path, **more: Any) -> AsyncIterator[Scene]:
    async with house(folder, [dis], **more) as place, api_client(place) as client:
        yield Scene(place=place, client=Dis(client))


async def test_an_event_is_as_documented(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create()
        await it.client.put("hello", partition_key="u1")
        await it.client.put("nobody's", partition_id="0", partition_key=None)
        await it.trigger()
        await it.has("hello", "nobody's")
        [event] = await it.place.events()

        cursor = event["Message"].pop("next_partition_cursor")

        assert event == {
            "ShardID": "shardId-0000000000",
            "Tag": "latest",
            "StreamName": "clicks",
            "Message": {
                "millis_behind_latest": "",
                "records": [
                    {"partition_key": "u1", "data": encoded("hello"), "sequence_number": "0"},
                    {"partition_key": "", "data": encoded("nobody's"), "sequence_number": "1"},
                ],
            },
        }
        assert (await it.client.get(cursor))["records"] == []


async def test_batches_have_no_more_records_than_asked_for(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create()
        await it.client.put(*map(str, range(25)))
        await it.trigger(batch_size=10)
        await it.has(*map(str, range(25)))

        assert [len(event["Message"]["records"]) for event in await it.place.events()] == [10, 10, 5]


async def test_a_trigger_that_is_turned_to_another_stream_takes_its_latest(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        await it.client.create(partitions=2)
        await it.client.create("others")
        await it.client.put("before", name="others")
        await it.client.put("earlier")
        clock.advance(1)
        trigger = await it.trigger(sharditerator_type="LATEST")
        await it.client.put("a", partition_id="0")
        await it.has("a")
        clock.advance(1)
        await it.place.update(trigger, stream_name="others")
        await it.client.put("missed", partition_id="1")
        await it.client.put("b", name="others")
        await it.has("a", "b")
        clock.advance(1)
        await it.place.update(trigger, stream_name="clicks")
        await it.client.put("c", partition_id="0")
        await it.client.put("d", partition_id="1")

        await it.has("a", "b", "c", "d")


async def test_the_trigger_may_be_there_before_its_stream(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        trigger = await it.trigger(sharditerator_type="LATEST")
        await until(lambda: "create it" in it.place.state(trigger).problem)
        await it.client.create()
        await it.client.put("a")

        await it.has("a")
        assert it.place.state(trigger).problem == "stream 'clicks' does not exist: create it (over)"


async def test_serial_waits_for_the_end_of_each_batch_also_of_the_run_before(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create()
        trigger = await it.trigger(is_serial="true", batch_size=1)
        await it.client.put("a", "b", "c")
        await it.has("a")
        while b"request" not in (await it.place.cursors(trigger)).get("shardId-0000000000", b""):  # noqa: ASYNC110  (a cursor sets no event)
            await anyio.sleep(0.005)
        await it.place.update(trigger, batch_size=2)
        await until(lambda: it.place.state(trigger).state == "running")
        await it.chances()
        before = await it.texts()
        await it.end(0)

        await it.has("a", "b", "c")
        assert before == ["a"]
        assert [len(event["Message"]["records"]) for event in await it.place.events()] == [1, 2]


async def test_children_are_read_after_their_parents(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create(partitions=2)
        await it.client.put("a", "b", partition_id="0")
        await it.client.put("c", partition_id="1")
        await it.client.scale(1)
        await it.client.put("d")
        await it.client.scale(3)
        await it.client.put("e", "f", "g", "h")
        await it.trigger(is_serial="true", batch_size=1)
        await it.has("a", "c")
        await it.end(1)
        await it.chances()
        waiting = await it.texts()
        await it.end(0)
        await it.has("a", "b", "c")
        await it.end(2)
        await it.has("a", "b", "c", "d")
        await it.end(3)
        while len(await it.texts()) < 5:  # noqa: ASYNC110  (as above)
            await anyio.sleep(0.005)

        assert sorted(waiting) == ["a", "c"]
        assert (await it.texts())[4] in {"e", "f", "g", "h"}


async def test_a_reader_that_waits_goes_on_in_the_children_of_a_split(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create()
        trigger = await it.trigger()
        await it.client.put("a")
        await it.has("a")
        await it.client.scale(4)
        await it.client.put(*map(str, range(10)))
        await it.has("a", *map(str, range(10)))
        await it.client.scale(1)
        await it.client.put("z")

        await it.has("a", "z", *map(str, range(10)))
        assert b"drained" in (await it.place.cursors(trigger))["shardId-0000000000"]


async def test_a_stream_that_was_scaled_is_read_whole_when_it_is_made_anew(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        await it.client.create()
        trigger = await it.trigger(is_serial="true", batch_size=1)
        await it.client.put("a", "b")
        await it.has("a")
        await it.client.scale(2)
        await it.place.update(trigger, batch_size=2)  # the new run of the source waits for the end of the first batch
        await it.client.ask("DELETE", "streams/clicks")
        await it.client.create(partitions=2)
        await it.client.put("c", partition_id="0")
        await it.client.put("d", partition_id="1")
        await it.end(0)

        await it.has("a", "c", "d")
        assert it.place.state(trigger).lost == 1
        assert "deleted before 1 of its records were read" in it.place.state(trigger).problem


async def test_records_of_children_that_nobody_read_are_counted_when_retention_passes(tmp_path: Path) -> None:
    clock = ManualClock(1_800_000_000.0)
    async with scene(tmp_path, clock=clock) as it:
        await it.client.create()
        trigger = await it.trigger(is_serial="true")
        await it.client.put("a")
        await it.has("a")
        await it.client.scale(2)
        await it.client.put("lost", partition_id="1")
        await it.client.put("lost too", partition_id="2")
    clock.advance(25 * 3600)
    async with scene(tmp_path, clock=clock) as it:
        await it.client.put("b", partition_id="1")
        await it.end(0)

        await it.has("a", "b")
        await until(lambda: it.place.state(trigger).lost == 2)
        assert "retention ended for 1 records of shardId-000000000" in it.place.state(trigger).problem


async def test_an_embedded_stream_belongs_to_a_project(tmp_path: Path) -> None:
    async with scene(tmp_path) as it, api_client(it.place) as http:
        other = Dis(http, "other")
        await other.create()
        await other.put("theirs")
        await it.client.create()
        await it.client.put("ours")
        await it.trigger()

        await it.has("ours")


async def test_triggers_read_on_when_the_service_of_streams_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = anyio.Event()

    async def fail_once(*_: object) -> None:
        monkeypatch.undo()
        failed.set()
        raise RuntimeError("the disk is odd")

    async with scene(tmp_path) as it:
        await it.client.create()
        await it.client.create("other")
        await it.trigger()
        await it.client.put("before")
        await it.has("before")
        monkeypatch.setattr(RowLogs, "purge", fail_once)
        await it.client.ask("DELETE", "streams/other")
        await failed.wait()
        while (await it.client.ask("GET", "streams/clicks")).status_code != 200:  # noqa: ASYNC110  (no event for it)
            await anyio.sleep(0.005)
        await it.client.put("after")

        await it.has("before", "after")
