"""Topics that are made anew again and again under load, while the engine is killed, stopped, or its backlog is full.

A value names the topic's generation, its partition and a running number. From each topic, the function must see the
first records, without a gap, and all of the last topic. What else was unread left with the topic.
"""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tests.acceptance.engine_process import PROJECT, EngineProcess, urn_of
from tests.support.kafka_broker import Broker, kafka_broker

pytestmark = pytest.mark.long

#: Times that the topic is made anew. 50 take about two minutes.
REMAKES = int(os.environ.get("KAFKA_REMAKES", "6"))
PARTITIONS = 2
SEEN = """
def handler(event, context):
    with open(%r, "a") as file:
        for record in event["records"]:
            file.write("".join(message + "\\n" for message in record["messages"]))
"""
SETTINGS = {
    "FUNCTIOND_PLUGINS__KAFKA__START": "earliest",
    "FUNCTIOND_PLUGINS__KAFKA__CHECK_EVERY": "0.5",
    "FUNCTIOND_PLUGINS__KAFKA__BATCH_WAIT": "0.01",
    "FUNCTIOND_QUEUE__FUNCTION_ROWS": "2",  # mostly full
}


class Load:
    """Producer of numbered records, with those that the broker has acknowledged."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._turn = anyio.Lock()
        self.generation = 0
        self.sent: defaultdict[tuple[int, int], int] = defaultdict(int)  #: records by generation and partition

    async def run(self) -> None:
        while True:
            try:
                async with AIOKafkaProducer(bootstrap_servers=self._broker.address) as producer:
                    while True:
                        await self._send(producer)
                        await anyio.sleep(0.005)
            except KafkaError:
                await anyio.sleep(0.05)

    async def _send(self, producer: AIOKafkaProducer) -> None:
        async with self._turn:
            for partition in range(PARTITIONS):
                place = self.generation, partition
                await producer.send_and_wait("t", b"%d %d %d" % (*place, self.sent[place]), partition=partition)
                self.sent[place] += 1

    async def remake(self) -> None:
        async with self._turn:  # no record is sent to the topic of another generation
            await self._broker.delete("t")
            await self._broker.create("t", PARTITIONS)
            self.generation += 1


async def disturb(engine: EngineProcess, load: Load, chance: random.Random) -> None:
    """Make the topic anew, while the engine runs, stands still, or is killed and started again."""
    match chance.choice(["run", "stop", "kill"]):
        case "run":
            await load.remake()
        case "stop":
            engine.signal(signal.SIGSTOP)
            await load.remake()
            await anyio.sleep(chance.uniform(0, 1.5))
            engine.signal(signal.SIGCONT)
        case "kill":
            await anyio.to_thread.run_sync(engine.kill)
            await load.remake()
            await anyio.to_thread.run_sync(engine.start)


def start(engine: EngineProcess, broker: Broker, seen: Path) -> None:
    engine.create("seen", SEEN % str(seen))
    data = {"instance_id": "i", "topic_ids": ["t"], "batch_size": 5, "kafka_connect_address": broker.address}
    body = {"trigger_type_code": "KAFKA", "trigger_status": "ACTIVE", "event_data": data}
    reply = engine.ask("POST", f"/v2/{PROJECT}/fgs/triggers/{urn_of('seen')}", body)
    assert reply.status == 201, reply


def numbers(seen: Path) -> dict[tuple[int, int], set[int]]:
    """Return the seen numbers by generation and partition."""
    by_partition: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for line in seen.read_text().splitlines():
        generation, partition, number = map(int, line.split())
        by_partition[generation, partition].add(number)
    return by_partition


@pytest.mark.parametrize("seed", [1])
@pytest.mark.timeout(600)
async def test_no_record_is_passed_over(tmp_path: Path, seed: int) -> None:
    chance, seen = random.Random(seed), tmp_path / "seen"
    seen.touch()
    async with kafka_broker() as broker, anyio.create_task_group() as tasks:
        load, engine = Load(broker), EngineProcess(tmp_path / "data", **SETTINGS)
        try:
            await broker.create("t", PARTITIONS)
            await anyio.to_thread.run_sync(engine.start)
            await anyio.to_thread.run_sync(start, engine, broker, seen)
            tasks.start_soon(load.run)
            for _ in range(REMAKES):
                await anyio.sleep(chance.uniform(0, 2))
                await disturb(engine, load, chance)
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                last = {place: count for place, count in load.sent.items() if place[0] == load.generation}
                with anyio.move_on_after(60):
                    while any(len(numbers(seen)[place]) < count for place, count in last.items()):  # noqa: ASYNC110
                        await anyio.sleep(0.1)
                await anyio.to_thread.run_sync(engine.close)

    read = numbers(seen)
    assert {place: numbers for place, numbers in read.items() if numbers != {*range(len(numbers))}} == {}
    assert {place: count for place, count in last.items() if len(read[place]) < count} == {}
    assert len({generation for generation, _ in read}) > REMAKES / 2
