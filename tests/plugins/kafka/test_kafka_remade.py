"""Topics that are deleted and recreated under the same name, and cases that must not be mistaken for it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import TopicPartition
from msgspec import Struct
from structlog.testing import capture_logs

from engine.protocols import CursorMove
from engine.resources.bound_trigger import BoundTrigger
from plugins.kafka import plugin
from plugins.kafka.fetches import Fetches
from plugins.kafka.offsets import ClusterOffsets, PartitionOffset, Start
from tests.support.gate import gate
from tests.support.kafka_broker import EARLIEST, Broker, kafka_broker, reading, until_committed
from tests.support.kafka_peer import Peer, kafka_peer
from tests.support.triggering import House, house, messages, until

pytestmark = pytest.mark.long

#: Timestamps of records in a topic and in its replacement, in milliseconds. Recent: brokers drop old records.
OLD = int(time.time() * 1000)
NEW = OLD + 1
#: Records per partition of a recreated topic. Its predecessor had three.
SIZES = {"fewer": 2, "equal": 3, "more": 5}
QUICK: dict[str, Any] = {**EARLIEST, "retry__longest": 0.1, "plugins__kafka__check_every": 0.2}
REMADE = "made anew"


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with kafka_broker() as broker:
        yield broker


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with kafka_peer(tmp_path / "peer") as peer:
        yield peer


@pytest.fixture(params=[kafka_broker, kafka_peer])
async def either(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """Yield a broker that rejects offsets behind the end, then one that returns no records for them."""
    async with request.param(*([tmp_path / "peer"] if request.param is kafka_peer else [])) as broker:
        yield broker


def values(word: str, count: int) -> list[bytes]:
    return [f"{word}-{number}".encode() for number in range(count)]


async def remake(broker: Broker, topic: str, count: int, partitions: int = 1, timestamp: int = NEW) -> None:
    await broker.delete(topic)
    await broker.create(topic, partitions)
    for partition in range(partitions):
        await broker.send(topic, *values(f"new {topic}/{partition}", count), partition=partition, timestamp=timestamp)


@asynccontextmanager
async def three_read(folder: Path, broker: Broker, **settings: Any) -> AsyncIterator[tuple[House, BoundTrigger]]:
    """Run an engine whose trigger has read three records of one partition of ``t``."""
    async with house(folder / "data", [plugin], **{**QUICK, **settings}) as place:
        await broker.create("t")
        trigger = await reading(place, broker)
        await broker.send("t", *values("old", 3), partition=0, timestamp=OLD)
        await messages(place, 3)
        yield place, trigger


@asynccontextmanager
async def disabled(place: House, trigger: BoundTrigger) -> AsyncIterator[None]:
    """Disable the trigger until the block ends."""
    await place.update(trigger, status="DISABLED")
    yield
    await place.update(trigger, status="ACTIVE")


async def read_on(place: House, count: int) -> list[str]:
    """Return what was read after the three records, as soon as it is ``count`` records."""
    return (await messages(place, 3 + count))[3:]


def new(count: int) -> list[str]:
    """Return the records of a topic that ``remake`` has made anew with ``count`` of them."""
    return [f"new t/0-{number}" for number in range(count)]


def problem(place: House, trigger: BoundTrigger) -> str:
    return place.state(trigger).problem


# --- cases that a test broker cannot produce ----------------------------------------------------------------


class Compacted:
    """Consumer calls for a partition of a compacted topic: a fetch returns the remaining records."""

    def __init__(self, *offsets: int) -> None:
        self._left = [Left(offset=offset, timestamp=OLD) for offset in offsets]
        self.found: list[Left] = []

    def seek(self, partition: Any, offset: int) -> None:
        self.found = [record for record in self._left if record.offset >= offset]


class Left(Struct):
    offset: int
    timestamp: int


@pytest.mark.parametrize(("left", "new"), [((0, 4, 7, 8), [7, 8]), ((0, 7, 8), [7, 8]), ((0, 5), [5])])
def test_a_record_that_compaction_has_removed_proves_nothing(left: tuple[int, ...], new: list[int]) -> None:
    one, consumer = TopicPartition("t", 0), Compacted(*left)
    offsets = ClusterOffsets(first=0, end=9, committed=5)
    marks = Fetches(consumer)
    position = PartitionOffset(cluster="i", offset=5, timestamp=OLD)
    marks.start_at(one, Start(position=position, reported=offsets, stored=True))

    with capture_logs() as logs:
        taken = marks.take(one, consumer.found)

    assert taken is not None
    assert [record.offset for record in taken] == new
    assert marks.position(one) == PartitionOffset(cluster="i", offset=new[-1] + 1, timestamp=OLD)
    assert [entry["offset"] for entry in logs if "cannot determine" in entry["event"]] == [4] * (4 not in left)


# --- recreated while no trigger reads -----------------------------------------------------------------------


@pytest.mark.parametrize("away", ["engine", "trigger"])
async def test_a_topic_made_anew_meanwhile_is_read_from_its_start(tmp_path: Path, either: Broker, away: str) -> None:
    with capture_logs() as logs:
        async with house(tmp_path / "data", [plugin], **QUICK) as place:
            for topic in SIZES:
                await either.create(topic, 2)
            trigger = await reading(place, either, topic_ids=[*SIZES])
            for topic in SIZES:
                for partition in (0, 1):
                    await either.send(topic, *values("old", 3), partition=partition, timestamp=OLD)
            await messages(place, 18)
            await place.update(trigger, status="DISABLED")
            if away == "trigger":
                await remake_all(either)
                await check_all_read(place, trigger)
        if away == "engine":
            await remake_all(either)
            async with house(tmp_path / "data", [plugin], **QUICK) as place:
                await check_all_read(place, trigger)

    topics = {topic for entry in logs if REMADE in entry["event"] for topic in entry["topics"]}
    assert topics == {*SIZES}


async def remake_all(broker: Broker) -> None:
    for topic, count in SIZES.items():
        await remake(broker, topic, count, partitions=2)


async def check_all_read(place: House, trigger: BoundTrigger) -> None:
    await place.update(trigger, status="ACTIVE")
    texts = await messages(place, 18 + 20)

    new = [f"new {topic}/{part}-{n}" for topic, count in SIZES.items() for part in (0, 1) for n in range(count)]
    assert sorted(text for text in texts if text.startswith("new")) == sorted(new)
    assert place.state(trigger).state == "running"
    assert all(f"topic {topic}" in problem(place, trigger) for topic in SIZES)


async def test_a_topic_made_anew_without_records_is_said_before_one_comes(tmp_path: Path, broker: Broker) -> None:
    async with three_read(tmp_path, broker) as (place, trigger):
        async with disabled(place, trigger):
            await remake(broker, "t", 0)
        await until(lambda: REMADE in problem(place, trigger))
        before = await place.cursors(trigger)
        await broker.send("t", b"new")

        assert {name: offset_of(cursor) for name, cursor in before.items()} == {"t/0": 0}
        assert await read_on(place, 1) == ["new"]


async def test_a_topic_of_which_nothing_was_read_is_made_anew(tmp_path: Path, broker: Broker) -> None:
    await broker.create("t", 2)
    for value in values("old", 3):
        await broker.send("t", value, partition=0, timestamp=OLD)
    # Starts at the current ends: offset 3 of one partition, offset 0 of the other.
    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker)
        async with disabled(place, trigger):
            await remake(broker, "t", 5, partitions=2)

        expected = [f"new t/{partition}-{number}" for partition in (0, 1) for number in range(5)]
        assert sorted(await messages(place, 10)) == expected
        assert REMADE in problem(place, trigger)


async def test_a_topic_of_the_same_times_is_known_by_its_id(tmp_path: Path, broker: Broker) -> None:
    async with three_read(tmp_path, broker) as (place, trigger):
        async with disabled(place, trigger):
            await remake(broker, "t", 5, timestamp=OLD)

        assert await read_on(place, 5) == new(5)


async def test_a_group_reads_a_topic_that_was_made_anew_under_it(tmp_path: Path, broker: Broker) -> None:
    async with three_read(tmp_path, broker, plugins__kafka__group="g") as (place, trigger):
        await remake(broker, "t", 5, timestamp=OLD)

        assert await read_on(place, 5) == new(5)
        assert REMADE in problem(place, trigger)


async def test_a_cursor_of_an_earlier_release_gets_the_id_of_the_topic(tmp_path: Path, broker: Broker) -> None:
    async with three_read(tmp_path, broker) as (place, trigger):
        present = await place.cursors(trigger)
        await forget_topic(place, trigger)
        await place.update(trigger, status="ACTIVE")
        await until(lambda: place.state(trigger).state == "running")
        gained = await place.cursors(trigger)
        async with disabled(place, trigger):
            await remake(broker, "t", 5)

        assert gained == present
        assert await read_on(place, 5) == new(5)


async def forget_topic(place: House, trigger: BoundTrigger) -> None:
    """Disable the trigger and rewrite its cursors without the topic, as older engines stored them."""
    disabled = await place.update(trigger, status="DISABLED")
    cursors = await place.cursors(trigger)
    old = {name: msgspec.json.encode({"cluster": "i", "offset": offset_of(value)}) for name, value in cursors.items()}
    move = CursorMove(
        trigger_id=trigger.id,
        owner=disabled.resource().owner,
        generation=disabled.stored.generation,
        expected=cursors,
        positions=old,
    )
    await place.engine.intake.accept_batch([], move)


def offset_of(cursor: bytes) -> int:
    offset: int = msgspec.json.decode(cursor)["offset"]
    return offset


# --- recreated while it is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["", "g"])
@pytest.mark.parametrize("count", [2, 3, 5])
async def test_a_topic_made_anew_at_once_under_a_running_trigger_is_read_from_its_start(
    tmp_path: Path, peer: Peer, count: int, group: str
) -> None:
    async with three_read(tmp_path, peer, plugins__kafka__group=group) as (place, trigger):
        await until_committed(peer, f"g:{trigger.function}" if group else f"functiond-{trigger.id}", 3)
        await remake(peer, "t", count)

        assert await read_on(place, count) == new(count)
        await until(lambda: REMADE in problem(place, trigger))


async def test_a_topic_made_anew_while_the_connection_was_lost_is_read_from_its_start(tmp_path: Path) -> None:
    async with gate() as between, kafka_broker(advertised=between.port) as broker:
        between.lead_to(broker.port)
        with capture_logs() as logs:
            async with three_read(tmp_path, broker, plugins__kafka__check_every=300) as (place, trigger):
                between.shut(b"functiond")
                await remake(broker, "t", 5)
                between.open()

                assert await read_on(place, 5) == new(5)
                assert REMADE in problem(place, trigger)
                assert place.state(trigger).lost == 0
    assert [entry for entry in logs if entry["event"] == "service failed"] == []


async def test_a_topic_made_anew_is_read_whatever_the_broker_still_knows_of_the_group(
    tmp_path: Path, peer: Peer
) -> None:
    async with three_read(tmp_path, peer) as (place, trigger):
        async with disabled(place, trigger):
            await remake(peer, "t", 0)
        await until(lambda: REMADE in problem(place, trigger))
        async with disabled(place, trigger):
            await peer.send("t", *values("new", 5), timestamp=NEW)

        assert await read_on(place, 5) == [f"new-{number}" for number in range(5)]


# --- not recreated ------------------------------------------------------------------------------------------


async def test_offsets_that_a_broker_has_forgotten_are_no_proof(tmp_path: Path, peer: Peer) -> None:
    async with three_read(tmp_path, peer, plugins__kafka__group="g") as (place, trigger):
        pass
    # The new group has no committed offsets.
    async with house(tmp_path / "data", [plugin], **QUICK, plugins__kafka__group="h") as place:
        await until(lambda: place.state(trigger).state == "running")
        await peer.send("t", b"more")

        assert await read_on(place, 1) == ["more"]
        assert problem(place, trigger) == ""


async def test_a_topic_is_read_on_from_its_first_record_where_those_before_are_gone(tmp_path: Path, peer: Peer) -> None:
    async with three_read(tmp_path, peer) as (place, trigger):
        async with disabled(place, trigger):
            await peer.send("t", *values("kept", 4))
            for before in (3, 5):  # drops the last record that was read, then two that were not read
                await peer.delete_records("t", 0, before)

        assert await read_on(place, 2) == ["kept-2", "kept-3"]
        assert problem(place, trigger) == "2 records of t/0 were removed before they were read"
        assert place.state(trigger).lost == 2


async def test_a_cursor_stays_where_records_before_it_are_gone(tmp_path: Path, peer: Peer) -> None:
    async with three_read(tmp_path, peer) as (place, trigger):
        async with disabled(place, trigger):
            await peer.delete_records("t", 0, 2)
        await peer.send("t", b"more")

        assert await read_on(place, 1) == ["more"]
        assert problem(place, trigger) == ""


async def test_a_marker_of_a_transaction_in_the_place_of_the_last_record_proves_nothing(
    tmp_path: Path, peer: Peer
) -> None:
    async with three_read(tmp_path, peer) as (place, trigger):
        with capture_logs() as logs:
            async with disabled(place, trigger):
                await remake(peer, "t", 0)
                # Its transaction marker has offset 2.
                await peer.send_in_transaction("t", b"new-0", b"new-1", partition=0, timestamp=NEW)
            await peer.send("t", b"more")

            assert await read_on(place, 1) == ["more"]
        assert [entry["offset"] for entry in logs if "cannot determine" in entry["event"]] == [2]
