"""Partitions and topics that come, go or cannot be read while others are, and the positions at which reading starts."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataResponse_v5
from aiokafka.structs import BrokerMetadata
from msgspec.structs import replace
from structlog.testing import capture_logs

from engine import EVENT_LIMIT
from engine.resources.bound_trigger import BoundTrigger
from plugins.kafka import plugin
from plugins.kafka.reader import BATCHES
from plugins.kafka.topics import Topic, Topics
from tests.support.http_app import PROJECT
from tests.support.kafka_broker import EARLIEST, Broker, kafka_broker, reading, until_committed
from tests.support.kafka_peer import Peer, kafka_peer
from tests.support.triggering import House, api_client, house, messages, until

QUICK: dict[str, Any] = {**EARLIEST, "plugins__kafka__check_every": 0.2, "plugins__kafka__batch_wait": 0.0}
GROUP: dict[str, Any] = {"plugins__kafka__group": "g", "plugins__kafka__session_timeout": 6}
MANY = 2 * BATCHES + 5
both = pytest.mark.parametrize("group", [{}, pytest.param(GROUP, marks=pytest.mark.long)], ids=["alone", "group"])


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with kafka_broker() as broker:
        await broker.create("t")
        yield broker


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    async with kafka_peer(tmp_path / "peer") as peer:
        await peer.create("t")
        yield peer


async def fill(place: House, trigger: BoundTrigger, broker: Broker) -> None:
    """Send ``MANY`` records at once. A trigger with ``batch_size`` 1 accepts some, and has taken as many more."""
    await place.update(trigger, status="DISABLED")
    await broker.send("t", *[b"%d" % number for number in range(MANY)])
    await place.update(trigger, status="ACTIVE")
    await until(lambda: "paused" in place.state(trigger).problem)


@both
async def test_new_partitions_are_read(tmp_path: Path, peer: Peer, group: dict[str, Any]) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK, **group) as place:
        await reading(place, peer)
        await peer.send("t", b"old", partition=0)
        await messages(place, 1)
        async with peer.admin() as admin:
            await admin.create_partitions({"t": NewPartitions(3)})
        await peer.send("t", b"new", partition=2)

        assert await messages(place, 2) == ["old", "new"]


async def test_a_missing_topic_is_named_and_the_others_are_read(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, topic_ids=["t", "none"])
        await broker.send("t", b"1")
        texts = await messages(place, 1)
        missing = place.state(trigger)
        await broker.create("none")
        await broker.send("none", b"2")

        assert texts == ["1"]
        assert missing.state == "running"
        assert missing.problem == "there is no topic none at i"
        assert await messages(place, 2) == ["1", "2"]


class Brokers:
    """Client of a cluster whose brokers 1, 2 and so on have these errors for the topic; None: it does not answer."""

    def __init__(self, *errors: int | None) -> None:
        self.cluster, self._errors = self, errors

    def brokers(self) -> list[BrokerMetadata]:
        return [BrokerMetadata(node, "127.0.0.1", 9092, None) for node, _ in enumerate(self._errors, 1)]

    async def send(self, node: int, request: Any, group: str) -> MetadataResponse_v5:
        error = self._errors[node - 1]
        if error is None:
            raise KafkaConnectionError(f"node {node} is down")
        partitions: list[Any] = [] if error else [(0, 0, 2, [2], [2], [])]
        return MetadataResponse_v5(0, [], "c", 2, [(error, "t", False, partitions)])


@pytest.mark.parametrize(
    ("errors", "problem"),
    [
        ((3, 0), ""),  # a broker that starts does not know all topics yet
        ((3, 3), "there is no topic t at i"),
        ((None, 0), ""),
        ((3, None), "there is no topic t at i"),
    ],
)
async def test_a_topic_is_missing_if_no_broker_knows_it(errors: tuple[int | None, ...], problem: str) -> None:
    topics = await Topics(Brokers(*errors), ["t"], "i").look(1)

    assert topics == {"t": Topic(leaders={} if problem else {0: 2}, problem=problem)}


@pytest.mark.parametrize(("errors", "text"), [((None, None), "node 2 is down"), ((), "the cluster has no brokers")])
async def test_topics_are_unknown_if_no_broker_answers(errors: tuple[None, ...], text: str) -> None:
    with pytest.raises(Exception, match=text):
        await Topics(Brokers(*errors), ["t"], "i").look(1)


async def test_an_offline_partition_and_a_forbidden_topic_are_named_and_the_rest_is_read(
    tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Topics.look

    async def partly(topics: Topics, node: int | None = None) -> dict[str, Topic]:
        """Return what a cluster tells when a broker is down, and with access rules: the test broker has neither."""
        topic = (await look(topics, node))["v"]
        return {"v": replace(topic, leaders={**topic.leaders, 1: -1}), "u": topics._topic("u", 29, "", [])}

    monkeypatch.setattr(Topics, "look", partly)
    await broker.create("v", 2)
    async with house(tmp_path, [plugin], **QUICK) as place:
        trigger = await reading(place, broker, topic_ids=["v", "u"])
        await broker.send("v", b"1", partition=0)

        assert await messages(place, 1) == ["1"]
        problems = "the login may not see topic u (operation Describe); no broker leads the partition v/1"
        assert (place.state(trigger).state, place.state(trigger).problem) == ("running", problems)


async def test_a_topic_that_is_deleted_stops_no_other_and_its_unread_records_are_counted(
    tmp_path: Path, broker: Broker
) -> None:
    full = {**QUICK, "queue__function_rows": 1}
    await broker.create("u")
    async with house(tmp_path, [plugin], **full) as place:
        trigger = await reading(place, broker, topic_ids=["t", "u"], batch_size=1)
        await fill(place, trigger, broker)
        await broker.delete("t")
        await broker.send("u", b"other")
        while "other" not in await messages(place, 0):
            for key in await place.keys():
                await place.engine.dispatcher.cancel(key)

        read = len(await messages(place, 0)) - 1
        state = place.state(trigger)
        assert read == 2 * BATCHES
        assert f"topic t was deleted with {MANY - read} records that were not read" in state.problem
        assert "there is no topic t" in state.problem
        assert state.lost == MANY - read


async def test_what_retention_removes_under_a_running_trigger_is_counted(tmp_path: Path, peer: Peer) -> None:
    full = {**QUICK, "queue__function_rows": 1}
    async with house(tmp_path / "data", [plugin], **full) as place:
        trigger = await reading(place, peer, batch_size=1)
        await fill(place, trigger, peer)
        await peer.send("t", *[b"%d" % number for number in range(MANY, 40)])
        await peer.delete_records("t", 0, 40)
        await peer.send("t", b"after")
        while "after" not in await messages(place, 0):
            for key in await place.keys():
                await place.engine.dispatcher.cancel(key)

        removed = 40 - (len(await messages(place, 0)) - 1)
        assert place.state(trigger).lost == removed > 0
        assert place.state(trigger).problem == f"{removed} records of t/0 were removed before they were read"


async def test_aborted_records_call_no_function_and_markers_are_passed(
    tmp_path: Path, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Topics.look

    async def with_ids(topics: Topics, node: int | None = None) -> dict[str, Topic]:
        """Give the topics ids: this broker has transactions and no ids, the other ids and no transactions."""
        return {name: replace(topic, id="1f") for name, topic in (await look(topics, node)).items()}

    monkeypatch.setattr(Topics, "look", with_ids)
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        trigger = await reading(place, peer)
        await peer.send_in_transaction("t", b"kept", partition=0, timestamp=int(time.time() * 1000))
        await peer.abort("t", b"aborted", partition=0)
        await peer.send("t", b"after")

        assert await messages(place, 2) == ["kept", "after"]
        await peer.abort("t", b"aborted", partition=0)
        await until_committed(peer, f"functiond-{trigger.id}", 7)  # four records and three markers
        assert await messages(place, 2) == ["kept", "after"]


async def test_uncommitted_records_are_read_if_asked_for(tmp_path: Path, peer: Peer) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        await reading(place, peer, isolation="read_uncommitted")
        await peer.abort("t", b"aborted", partition=0)

        assert await messages(place, 1) == ["aborted"]


@pytest.mark.long
async def test_the_first_position_of_a_group_is_committed_before_a_record_comes(tmp_path: Path, broker: Broker) -> None:
    await broker.send("t", b"old")
    latest: dict[str, Any] = {**GROUP, "plugins__kafka__start": "latest"}
    async with house(tmp_path / "a", [plugin], **latest) as place:
        trigger = await reading(place, broker)
        await until_committed(broker, f"g:{trigger.function}", 1)
    await broker.send("t", b"between")
    async with house(tmp_path / "b", [plugin], **latest) as place:
        await reading(place, broker)

        assert await messages(place, 1) == ["between"]


async def test_a_trigger_starts_at_a_time(tmp_path: Path, peer: Peer) -> None:
    now = int(time.time())
    for age in (30, 20, 10):
        await peer.send("t", b"%d" % age, timestamp=(now - age) * 1000)
    async with house(tmp_path / "data", [plugin]) as place:
        moment = datetime.fromtimestamp(now - 20, UTC).isoformat()
        await reading(place, peer, starting_position=moment)

        assert await messages(place, 2) == ["20", "10"]


@both
async def test_a_trigger_reads_from_the_position_that_a_user_sets(
    tmp_path: Path, peer: Peer, group: dict[str, Any]
) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK, **group) as place, api_client(place) as client:
        trigger = await reading(place, peer)
        await peer.send("t", b"0", b"1", b"2")
        await messages(place, 3)
        await place.update(trigger, status="DISABLED")
        path = f"/v2/{PROJECT}/fgs/triggers/{place.urn}/KAFKA/{trigger.id}/seek"
        reply = await client.post(path, json={"positions": {"t/0": "1"}})
        await place.update(trigger, status="ACTIVE")

        assert reply.status_code == 200, reply.text
        assert await messages(place, 5) == ["0", "1", "2", "1", "2"]


async def test_a_group_of_a_deleted_trigger_is_deleted(tmp_path: Path, peer: Peer) -> None:
    async with house(tmp_path / "data", [plugin], **QUICK) as place:
        trigger = await reading(place, peer)
        await peer.send("t", b"1")
        await until_committed(peer, f"functiond-{trigger.id}", 1)
        await place.delete(trigger)
        async with peer.admin() as admin:
            assert f"functiond-{trigger.id}" not in [group[0] for group in await admin.list_consumer_groups()]


async def test_a_refused_record_is_named(tmp_path: Path, broker: Broker) -> None:
    await broker.send("t", b"1", b'"' * (EVENT_LIMIT // 2), b"2")  # each quote takes two bytes in JSON
    async with house(tmp_path, [plugin], **QUICK) as place:
        with capture_logs() as logs:
            trigger = await reading(place, broker)

            assert await messages(place, 2) == ["1", "2"]
        state = place.state(trigger)
        assert state.refused == 1
        assert state.problem.startswith("record 1 of t/0 was refused: its event has")
        [entry] = [entry for entry in logs if entry["event"] == "record refused"]
        assert (entry["partition"], entry["offset"]) == ("t/0", 1)


async def test_the_state_tells_how_many_records_are_unread(tmp_path: Path, broker: Broker) -> None:
    full = {**QUICK, "queue__function_rows": 1}
    async with house(tmp_path, [plugin], **full) as place:
        trigger = await reading(place, broker, batch_size=1)
        await fill(place, trigger, broker)
        behind = place.state(trigger).lag
        while len(await messages(place, 0)) < MANY:
            for key in await place.keys():
                await place.engine.dispatcher.cancel(key)

        assert behind == {"t/0": MANY - BATCHES}
        await until(lambda: place.state(trigger).lag == {"t/0": 0})


async def test_a_record_has_its_key_headers_and_place(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], **QUICK) as place:
        await reading(place, broker, message_format="record")
        await broker.send("t", b"\xff", key=b"k", timestamp=1_800_000_000_000)
        await messages(place, 1)
        [event] = await place.events()

        assert event["records"][0]["messages"] == [
            {
                "key": "k",
                "value": "/w==",
                "value_encoding": "base64",
                "headers": [],
                "timestamp": 1_800_000_000_000,
                "partition": 0,
                "offset": 0,
            }
        ]
