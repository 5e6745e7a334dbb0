"""Kafka as a source and a destination. Tests marked ``slow`` use a real broker."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from aiobotocore.session import get_session
from aiokafka import AIOKafkaProducer
from msgspec import Struct

from engine import EVENT_LIMIT, SettingsError, Undeliverable
from plugins._shared.batches import events
from plugins.kafka import open_plugin, plugin
from plugins.kafka.client import connection
from plugins.kafka.destination import RECORD_LIMIT, KafkaDestination, KafkaParam
from plugins.kafka.offsets import ClusterOffsets, PartitionOffset, begin, is_anew
from plugins.kafka.options import Instance, KafkaOptions, KafkaSettings, OpenKafkaOptions
from tests.plugins import delivering
from tests.support.kafka_broker import EARLIEST, Broker, kafka_broker, reading, until_committed
from tests.support.s3_server import S3Server, s3_server
from tests.support.triggering import House, house, messages, until


class One(Struct):
    """Part of a record that batches read."""

    value: bytes | None
    topic: str = "t"


def options(**changes: Any) -> KafkaOptions:
    return KafkaOptions(**{"instance_id": "i", "topic_ids": ("t",), "batch_size": 10, **changes})


# --- batches ------------------------------------------------------------------------------------------------


def test_records_of_several_topics_make_one_event_with_an_entry_for_each() -> None:
    records = [One(b"1"), One(b"2", "u"), One(b"3")]

    [event] = events(records, {"event_time": 5}, EVENT_LIMIT)

    entries = [{"messages": ["1", "3"], "topic_id": "t"}, {"messages": ["2"], "topic_id": "u"}]
    assert json.loads(event.payload) == {"event_time": 5, "records": entries}


def test_values_are_text_whatever_they_hold() -> None:
    [event] = events([One(b'"\n\x00'), One(None), One(b"\xff"), One("é".encode())], {"a": 1}, EVENT_LIMIT)

    assert json.loads(event.payload)["records"][0]["messages"] == ['"\n\x00', "", "\ufffd", "é"]


@pytest.mark.parametrize("limit", range(40, 140, 9))
def test_events_keep_to_the_limit_and_all_records_in_order(limit: int) -> None:
    records = [One(b"x" * (n % 7) + b"%d" % n, "tu"[n % 3 == 0]) for n in range(30)]

    payloads = [event.payload for event in events(records, {"a": 1}, limit)]

    whole = [json.loads(payload)["records"] for payload in payloads]
    pairs = [(entry["topic_id"], message) for entries in whole for entry in entries for message in entry["messages"]]
    for topic in "tu":
        assert [m for t, m in pairs if t == topic] == [(r.value or b"").decode() for r in records if r.topic == topic]
    assert all(len(payload) <= limit or len(entries) == 1 for payload, entries in zip(payloads, whole, strict=True))


def test_a_record_above_the_limit_is_alone() -> None:
    sizes = [len(event.payload) > 99 for event in events([One(b"1"), One(b"x" * 99), One(b"2")], {"a": 1}, 90)]

    assert sizes == [False, True, False]


@pytest.mark.parametrize(
    ("own", "committed", "start", "expected"),
    [
        (None, None, 9, 9),
        (None, None, 2, 2),
        (5, None, 9, 5),
        (5, 3, 9, 5),  # the process was killed before it committed to the broker
        (5, 8, 9, 8),  # another engine of the group read on
        (None, 7, 9, 7),
        (1, None, 9, 2),  # the cluster dropped the oldest records
    ],
)
def test_where_a_partition_is_begun(own: int, committed: int, start: int, expected: int) -> None:
    assert begin(own, ClusterOffsets(first=2, end=9, committed=committed), start) == expected


@pytest.mark.parametrize(
    ("committed", "expected"),
    [
        (None, 2),
        (4, 4),  # committed by another engine of the group that noticed first
        (5, 2),  # committed by this engine while the topic was deleted
        (1, 2),
    ],
)
def test_a_partition_made_anew_is_begun_where_nobody_has_read_it(committed: int, expected: int) -> None:
    assert begin(5, ClusterOffsets(first=2, end=9, committed=committed, anew=True), 9) == expected


@pytest.mark.parametrize(
    ("before", "now", "offset", "rejected", "expected"),
    [
        ("a", "a", 5, False, False),
        ("a", "b", 5, False, True),
        ("a", "b", 1, False, True),
        ("", "b", 5, False, False),  # the cursor of an earlier release
        ("a", "a", 5, True, False),  # a new leader rejects an offset for a moment
        ("a", "a", 9, True, True),  # the cluster has lost the newest records
        ("a", "a", 1, True, False),  # removed by retention
        ("", "", 5, True, True),  # another record, or none, on brokers without ids
        ("", "", 1, True, False),
        ("", "", 9, False, True),
    ],
)
def test_a_topic_is_another_by_its_id_or_by_what_it_no_longer_holds(
    before: str, now: str, offset: int, rejected: bool, expected: bool
) -> None:
    cursor = PartitionOffset(cluster="i", offset=offset, topic=before)

    assert is_anew(cursor, now, first=2, end=8, rejected=rejected) is expected


# --- settings -----------------------------------------------------------------------------------------------


def test_an_instance_that_nobody_knows_is_named() -> None:
    with pytest.raises(SettingsError, match=r"plugins\.kafka\.instances\.i\.address"):
        KafkaSettings().cluster(options())


def test_a_login_of_a_trigger_becomes_sasl() -> None:
    login = options(kafka_connect_address="a:1", kafka_user="u", kafka_password="p")
    settings = KafkaSettings(instances={"i": Instance(mechanism="SCRAM-SHA-512")})

    arguments = connection(settings.cluster(login))

    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("u", "p")


def test_tls_checks_the_host_and_may_have_an_authority_of_its_own(tmp_path: Path) -> None:
    context = connection(Instance(address="a:1", tls=True))["ssl_context"]

    assert context.check_hostname
    with pytest.raises(OSError, match="No such file"):
        connection(Instance(address="a:1", tls=True, ca_file=str(tmp_path / "none")))


def test_an_open_cluster_needs_its_address() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"kafka_connect_address": "", "topic_ids": ["t"], "batch_size": 1}, OpenKafkaOptions)


# --- the source ---------------------------------------------------------------------------------------------


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with kafka_broker() as broker:
        await broker.create("t", 2)
        yield broker


def test_the_extra_brings_what_producers_compress_with() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]

    assert [requirement.partition(">=")[0] for requirement in project["optional-dependencies"]["kafka"]] == [
        "aiokafka[lz4,snappy,zstd]"
    ]


async def test_records_are_read_however_they_are_compressed(tmp_path: Path, broker: Broker) -> None:
    codecs = ["gzip", "lz4", "snappy", "zstd"]
    async with house(tmp_path, [plugin]) as place:
        await reading(place, broker)
        for codec in codecs:
            async with AIOKafkaProducer(bootstrap_servers=broker.address, compression_type=codec) as producer:
                await producer.send_and_wait("t", codec.encode() * 100)

        assert sorted(await messages(place, 4)) == [codec * 100 for codec in codecs]


async def test_a_record_that_the_client_cannot_read_stops_no_trigger(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], plugins__kafka__batch_wait=0.0) as place:
        trigger = await reading(place, broker, batch_size=100)
        await place.update(trigger, status="DISABLED")
        await broker.send("t", b"other", partition=1)
        await broker.send("t", b"before", partition=0)
        odd = [sys.executable, "-c", ODD_HEADER, broker.address]
        await anyio.run_process(odd, env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"})
        await broker.send("t", b"after", partition=0)
        await place.update(trigger, status="ACTIVE")

        assert sorted(await messages(place, 3)) == ["after", "before", "other"]


#: Program that sends a header whose name is not UTF-8: only this client's Python part can be patched to do so.
ODD_HEADER = """
import asyncio, sys
from aiokafka import AIOKafkaProducer

class Odd(str):
    def encode(self, *encoding):
        return b"\\xff"

async def send():
    async with AIOKafkaProducer(bootstrap_servers=sys.argv[1]) as producer:
        await producer.send_and_wait("t", b"odd", headers=[(Odd("x"), b"")], partition=0)

asyncio.run(send())
"""


@pytest.mark.parametrize(("kind", "instance"), [("KAFKA", "i"), ("OPENSOURCEKAFKA", "")])
async def test_a_batch_is_one_event_as_documented(tmp_path: Path, broker: Broker, kind: str, instance: str) -> None:
    async with house(tmp_path, [plugin, open_plugin]) as place:
        await reading(place, broker, kind)
        await broker.send("t", b"a", b"b", partition=0)
        await messages(place, 2)

        events = await place.events()
        told = {name: value for name, value in events[0].items() if name not in ("records", "event_time")}
        assert told == {
            "event_version": "v1.0",
            "trigger_type": "KAFKA",
            "region": place.engine.settings.http.region,
            "instance_id": instance,
        }
        assert abs(events[0]["event_time"] - place.engine.clock.now()) < 60
        assert {record["topic_id"] for event in events for record in event["records"]} == {"t"}


async def test_by_default_a_topic_is_read_from_now_on_and_the_broker_hears_how_far(
    tmp_path: Path, broker: Broker
) -> None:
    await broker.send("t", b"old", partition=0)
    async with house(tmp_path, [plugin]) as place:
        trigger = await reading(place, broker)
        await broker.send("t", b"new", partition=0)
        texts = await messages(place, 1)
        await until_committed(broker, f"functiond-{trigger.id}", 2)

        assert texts == ["new"]
        cursor = json.loads((await place.cursors(trigger))["t/0"])
        assert cursor == {"cluster": "i", "offset": 2, "topic": cursor["topic"]}
        assert len(bytes.fromhex(cursor["topic"])) == 16


async def test_a_batch_ends_at_its_size_and_a_record_too_large_is_thrown_away(tmp_path: Path, broker: Broker) -> None:
    await broker.send("t", b"1", b"2", b"3", b"x" * EVENT_LIMIT, b"4", partition=0)
    async with house(tmp_path, [plugin], **EARLIEST) as place:
        trigger = await reading(place, broker, batch_size=2)
        texts = await messages(place, 4)

        assert texts == ["1", "2", "3", "4"]
        assert max(len(event["records"][0]["messages"]) for event in await place.events()) == 2
        await until(lambda: place.state(trigger).refused == 1)


async def test_another_cluster_is_not_begun_where_the_last_one_ended(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], **EARLIEST) as place, kafka_broker() as other:
        await other.create("t", 2)
        trigger = await reading(place, broker)
        await broker.send("t", b"1", b"2", partition=0)
        await messages(place, 2)
        await other.send("t", b"3", partition=0)
        await place.update(trigger, instance_id="j", kafka_connect_address=other.address)

        assert await messages(place, 3) == ["1", "2", "3"]


async def test_a_topic_that_is_not_there_is_named(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin]) as place:
        trigger = await place.create(
            "KAFKA", instance_id="i", topic_ids=["none", " "], batch_size=1, kafka_connect_address=broker.address
        )
        await place.update(trigger, status="ACTIVE")

        await until(lambda: "there is no topic none at i" in place.state(trigger).problem)
        assert "' ' is not a valid name of a topic" in place.state(trigger).problem


async def test_a_broker_that_is_killed_is_missed_and_read_on_when_it_is_back(tmp_path: Path) -> None:
    quick: dict[str, Any] = {**EARLIEST, "plugins__kafka__check_every": 0.2, "retry__longest": 0.5}
    with s3_server(tmp_path) as store:
        await bucket(store, "tansu")
        async with kafka_broker(store) as broker, house(tmp_path / "data", [plugin], **quick) as place:
            await broker.create("t")
            trigger = await reading(place, broker)
            await broker.send("t", b"1")
            await messages(place, 1)
            await broker.kill()
            await until(lambda: bool(place.state(trigger).problem))
            problem = place.state(trigger).problem  # of the fetch, or of the offsets that were to be stored then
            assert str(broker.port) in problem
            assert "node which is not ready" not in problem
            await broker.run()
            await broker.send("t", b"2")

            assert await messages(place, 2) == ["1", "2"]


async def bucket(store: S3Server, name: str) -> None:
    service = store.service
    keys = {"aws_access_key_id": service.access_key, "aws_secret_access_key": service.secret_key}
    session = get_session()
    async with session.create_client("s3", endpoint_url=service.endpoint, region_name="us-east-1", **keys) as s3:
        await s3.create_bucket(Bucket=name)


@pytest.mark.long
async def test_engines_of_one_group_share_the_partitions_and_each_record_comes_once(
    tmp_path: Path, broker: Broker
) -> None:
    shared = {"plugins__kafka__group": "g", **EARLIEST}
    async with house(tmp_path / "a", [plugin], **shared) as one, house(tmp_path / "b", [plugin], **shared) as two:
        await reading(one, broker)
        await broker.send("t", *NUMBERS[:20], partition=0)
        await broker.send("t", *NUMBERS[20:40], partition=1)
        await messages(one, 40)
        await reading(two, broker)  # the group revokes both partitions from the first and assigns them again
        for partition in (0, 1):
            await broker.send("t", *NUMBERS[40 + 20 * partition :][:20], partition=partition)
        last = await messages(two, 20)
        texts = await messages(one, 60)

        assert sorted(texts + last) == sorted(number.decode() for number in NUMBERS)
        assert len(last) == 20


NUMBERS = [b"%d" % number for number in range(80)]


# --- the destination ----------------------------------------------------------------------------------------


async def deliver(place: House, topic: str, record: bytes) -> None:
    destination = KafkaDestination(KafkaParam(instance_id="i", topic=topic))
    await delivering.deliver(place, "KAFKA", destination, record, traceparent=TRACE)


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OUTCOME = b'{"request_context": {"request_id": "r"}, "response_payload": "%b"}'


async def test_an_outcome_becomes_a_record_with_one_id_however_often_it_is_sent(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], plugins__kafka__instances__i__address=broker.address) as place:
        await deliver(place, "t", OUTCOME % b"x")
        await deliver(place, "t", OUTCOME % b"x")

        records = await broker.records("t", 2)
        headers = ("functiond-id", b"r-7"), ("functiond-hops", b"1"), ("traceparent", TRACE.encode())
        assert {(record.key, record.value, record.headers) for record in records} == {(b"r", OUTCOME % b"x", headers)}


async def test_an_outcome_too_large_for_a_record_is_undeliverable(tmp_path: Path, broker: Broker) -> None:
    async with house(tmp_path, [plugin], plugins__kafka__instances__i__address=broker.address) as place:
        with pytest.raises(Undeliverable, match="topic t of the cluster i accepts no record of this size"):
            await deliver(place, "t", OUTCOME % (b"x" * RECORD_LIMIT))
