"""Second Kafka-compatible broker, noida-db, for states that Tansu does not have.

Like Apache Kafka, and unlike Tansu, noida-db deletes records on request, writes transaction markers into the log and
rejects offsets out of range. Unlike Apache Kafka, it keeps the offsets of groups when their topic is deleted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from tests.support.kafka_broker import Broker


class Peer(Broker):
    def __init__(self, folder: Path) -> None:
        super().__init__("", {})
        self._folder = folder

    async def run(self) -> None:
        options = ["--only", "kafka", "--kafka-port", str(self.port), "--data-dir", str(self._folder)]
        await self.start(_program(), "start", *options, port=self.port)

    async def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Move the first offset of a partition forward, as retention does."""
        async with self.admin() as admin:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=before)})

    async def send_in_transaction(self, topic: str, *values: bytes, partition: int, timestamp: int) -> None:
        """Send in one transaction. Its end marker takes the offset after the last record."""
        async with (
            AIOKafkaProducer(bootstrap_servers=self.address, transactional_id="t") as producer,
            producer.transaction(),
        ):
            for value in values:
                await producer.send_and_wait(topic, value, partition=partition, timestamp_ms=timestamp)

    async def abort(self, topic: str, value: bytes, partition: int) -> None:
        """Send in one transaction, and abort it."""
        async with AIOKafkaProducer(bootstrap_servers=self.address, transactional_id="aborted") as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value, partition=partition)
            await producer.abort_transaction()


@asynccontextmanager
async def kafka_peer(folder: Path) -> AsyncIterator[Peer]:
    """Run the broker until the block is left."""
    peer = Peer(folder)
    await peer.run()
    try:
        yield peer
    finally:
        await peer.kill()


def _program() -> Path:
    package = find_spec("noida_db")
    if package is None or package.origin is None:
        pytest.skip("there is no second Kafka broker to try: pip install noida-db")
    return Path(package.origin).parent / "noida-db"
