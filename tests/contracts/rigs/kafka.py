"""KAFKA: topic of a broker; the trigger reads all its partitions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from tests.contracts.rigs import base
from tests.support.kafka_broker import Broker, kafka_broker

TOPIC = "orders"


class Rig(base.Rig):
    kind = "KAFKA"
    change = {"batch_size": 2}
    parts = ("same", "fewer", "more")
    counts_removed = False  # records may come after the last fetch

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.kafka.start": "earliest", "plugins.kafka.batch_wait": 0.0}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        async with kafka_broker() as broker:
            await broker.create(TOPIC, 2)
            self._broker: Broker = broker
            yield self

    def options(self) -> dict[str, Any]:
        address = self._broker.address
        return {"instance_id": "i", "topic_ids": [TOPIC], "batch_size": 100, "kafka_connect_address": address}

    async def send(self, target: base.Target, number: int) -> bool:
        await self._broker.send(TOPIC, str(number).encode())
        return True

    async def remove(self, target: base.Target) -> None:
        await self._broker.delete(TOPIC)

    async def restore(self, target: base.Target, parts: str) -> None:
        await self._broker.create(TOPIC, {"same": 2, "fewer": 1, "more": 3}[parts])

    def numbers(self, event: Any) -> list[int]:
        return [int(message) for record in event["records"] for message in record["messages"]]
