"""Option ``ordering`` of KAFKA, DIS and RABBITMQ: one invocation per key and batch, in the order of its key."""

from __future__ import annotations

import base64
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InvalidTrigger
from engine.model import Record
from plugins._shared.batches import by_key, ordering_key
from plugins.dis import plugin as dis
from plugins.kafka import open_plugin
from plugins.kafka import plugin as kafka
from plugins.rabbitmq import plugin as rabbitmq
from plugins.timer import plugin as timer
from tests.support.kafka_broker import EARLIEST, kafka_broker, reading
from tests.support.rabbit_broker import PASSWORD, USER, VHOST, started_broker
from tests.support.streams import Dis
from tests.support.triggering import House, api_client, house, messages, until

ORDERED = {"ordering": "record_key"}


async def records(place: House) -> list[Record]:
    stored = [await place.engine.storage.records.get(key) for key in await place.keys()]
    return [record for record in stored if record]


@pytest.mark.parametrize(
    ("key", "expected"), [(b"customer 17", "customer 17"), (b"k" * 200, "k" * 200), (b"", "KAFKA:t:0")]
)
def test_a_record_key_is_the_ordering_key(key: bytes, expected: str) -> None:
    assert ordering_key(key, "KAFKA:t:0") == expected


@pytest.mark.parametrize("key", [b"k" * 201, "\xe9".encode(), b"\x00"])
def test_a_key_that_cannot_be_an_ordering_key_is_hashed(key: bytes) -> None:
    hashed = ordering_key(key, "KAFKA:t:0")

    assert re.fullmatch("sha256:[0-9a-f]{64}", hashed)
    assert hashed != ordering_key(key + b"x", "KAFKA:t:0")


def test_groups_keep_the_order_of_their_records() -> None:
    assert by_key(["b1", "a1", "b2", "a2"], lambda text: text[0]) == {"b": ["b1", "b2"], "a": ["a1", "a2"]}


async def test_a_kafka_batch_becomes_one_invocation_for_each_key(tmp_path: Path) -> None:
    async with kafka_broker() as broker, house(tmp_path, [kafka, open_plugin], **EARLIEST) as place:
        await broker.create("t", 2)
        for value, key in ((b"1", b"a"), (b"2", b"b"), (b"3", b"a"), (b"4", None), (b"5", None)):
            await broker.send("t", value, partition=0, key=key)
        await broker.send("t", b"6", partition=1)
        trigger = await reading(place, broker, **ORDERED)
        await messages(place, 6)

        by_key_of: dict[str, list[str]] = {}
        for record, event in zip(await records(place), await place.events(), strict=True):
            by_key_of.setdefault(record.ordering_key, []).extend(event["records"][0]["messages"])
        assert by_key_of == {"a": ["1", "3"], "b": ["2"], "KAFKA:t:0": ["4", "5"], "KAFKA:t:1": ["6"]}
        held = [record for record in await records(place) if record.held]
        assert len(held) == len(await place.keys()) - len(by_key_of)
        assert (await place.cursors(trigger))["t/0"].startswith(b'{"cluster":"i","offset":5')


async def test_a_dis_batch_becomes_one_invocation_for_each_key_and_none_is_waited_for(tmp_path: Path) -> None:
    async with house(tmp_path, [dis]) as place, api_client(place) as client:
        stream = Dis(client)
        await stream.create()
        for text, key in (("1", "a"), ("2", "b"), ("3", "a"), ("4", None), ("5", "a"), ("6", "b")):
            place_of: dict[str, Any] = {"partition_id": "0"} if key is None else {}
            await stream.put(text, partition_key=key, **place_of)
        options = {"stream_name": "clicks", "sharditerator_type": "TRIM_HORIZON", "is_serial": "true", "batch_size": 4}
        trigger = await place.create("DIS", **options, **ORDERED)

        def texts(event: Any) -> list[str]:
            return [base64.b64decode(record["data"]).decode() for record in event["Message"]["records"]]

        while sum(len(texts(event)) for event in await place.events()) < 6:
            await stream.texts()
        pairs = list(zip(await records(place), await place.events(), strict=True))
        assert [(record.ordering_key, record.held, texts(event)) for record, event in pairs] == [
            ("a", False, ["1", "3"]),
            ("b", False, ["2"]),
            ("DIS:clicks:shardId-0000000000", False, ["4"]),
            ("a", True, ["5"]),
            ("b", True, ["6"]),
        ]
        assert b'"after":"5"' in (await place.cursors(trigger))["shardId-0000000000"]


async def test_a_rabbitmq_batch_becomes_one_invocation_for_each_routing_key(tmp_path: Path) -> None:
    broker, exchange = await started_broker(), f"x-{uuid.uuid4()}"
    await broker.create(exchange, "fanout")
    login = {"vhost": VHOST, "connect_address": broker.address, "access_user": USER, "access_password": PASSWORD}
    async with house(tmp_path, [rabbitmq]) as place:
        options = {"instance_id": "i", "exchange_name": exchange, "batch_size": 10, **login, **ORDERED}
        trigger = await place.create("RABBITMQ", **options)
        await until(lambda: place.state(trigger).state == "running")
        for body, key in ((b"1", "a"), (b"2", "b"), (b"3", "a"), (b"4", "")):
            await broker.send(exchange, body, key=key)
        await messages(place, 4)

        found: dict[str, list[str]] = {}
        for record, event in zip(await records(place), await place.events(), strict=True):
            found.setdefault(record.ordering_key, []).extend(event["records"][0]["messages"])
        assert found == {"a": ["1", "3"], "b": ["2"], f"RABBITMQ:{exchange}": ["4"]}
        await place.delete(trigger)


async def test_a_synchronous_trigger_refuses_the_option_and_all_refuse_other_values(tmp_path: Path) -> None:
    async with house(tmp_path, [timer, kafka], triggers__timer_sync_execution=True) as place:
        every = {"name": "t", "schedule_type": "Rate", "schedule": "1d", "sync_execution": True}
        with pytest.raises(InvalidTrigger, match="ordering"):
            await place.create("TIMER", **every, **ORDERED)
        stream = {"instance_id": "i", "topic_ids": ["t"], "batch_size": 1, "invocation_type": "sync"}
        with pytest.raises(InvalidTrigger, match="asynchronously"):
            await place.create("KAFKA", **stream, **ORDERED)
        for value in ("key", 1):
            with pytest.raises(InvalidTrigger, match="ordering"):
                await place.create("KAFKA", **{**stream, "invocation_type": "async"}, ordering=value)
