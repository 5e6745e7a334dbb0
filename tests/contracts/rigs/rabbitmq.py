"""RABBITMQ: exchange of a broker, bound to the trigger's queue."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import anyio.to_thread

from tests.contracts.rigs import base
from tests.support.rabbit_broker import PASSWORD, USER, VHOST, started_broker


class Rig(base.Rig):
    kind = "RABBITMQ"
    may_disable = False
    change = {"batch_size": 2}
    breakable = True
    parts = ("same",)
    unbound = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.settings = {"plugins.rabbitmq.batch_wait": 0.0, "plugins.rabbitmq.check_every": 0.05, "retry.longest": 0.5}
        self._exchange = f"orders-{uuid.uuid4()}"
        self._routed = False  #: messages are sent until a queue takes them

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Self]:
        self._broker = await started_broker()
        await self._broker.create(self._exchange)
        yield self

    def options(self) -> dict[str, Any]:
        return {
            "instance_id": "i",
            "exchange_name": self._exchange,
            "vhost": VHOST,
            "access_user": USER,
            "access_password": PASSWORD,
            "connect_address": self._broker.address,
            "batch_size": 100,
        }

    async def send(self, target: base.Target, number: int) -> bool:
        if self._routed:
            await self._broker.send_routed(self._exchange, str(number).encode())
        else:
            await self._broker.send(self._exchange, str(number).encode())
        return True

    def numbers(self, event: Any) -> list[int]:
        return [int(message) for record in event["records"] for message in record["messages"]]

    async def breaks(self) -> None:
        await anyio.to_thread.run_sync(self._broker.kill)
        self._routed = True

    async def mends(self) -> None:
        await anyio.to_thread.run_sync(self._broker.start)

    async def remove(self, target: base.Target) -> None:
        await self._broker.delete_queue(f"functiond-{target.trigger_id}")
        await self._broker.delete(self._exchange)

    async def restore(self, target: base.Target, parts: str) -> None:
        await self._broker.create(self._exchange)
        self._routed = True
