"""The source of RABBITMQ: a queue of its own, bound to the exchange, acknowledged once its messages are safe here.

The queue outlives the engine, not the trigger: a week after the last reader has gone the broker drops it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import TriggerContext
from plugins.batches import events
from plugins.rabbitmq.accepted import Accepted, cursor, mark
from plugins.rabbitmq.options import RabbitOptions
from plugins.rabbitmq.settings import Instance, RabbitSettings, library

#: Milliseconds that the broker keeps a queue that nobody reads.
EXPIRES = 7 * 24 * 3600 * 1000
#: Seconds that reaching the broker may take.
PATIENCE = 15.0


class RabbitTrigger:
    def __init__(self, options: RabbitOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: RabbitSettings = context.plugin.settings
        async with _connection(settings.broker(self._options), self._options.vhost or "/") as connection:
            reader = _Reader(self._options, settings, context)
            await reader.begin(connection)
            task_status.started()
            while True:
                await reader.step()


@asynccontextmanager
async def _connection(broker: Instance, vhost: str) -> AsyncIterator[Any]:
    connection = await library().connect(virtualhost=vhost, timeout=PATIENCE, **broker.connection)
    try:
        yield connection
    finally:
        with anyio.move_on_after(2, shield=True):
            await connection.close()


class _Message(Struct, frozen=True, kw_only=True):
    topic: str
    value: bytes
    mark: str  #: empty: without an id
    ack: Any


class _Reader:
    """One run. What came waits in a queue, behind it the end of the connection."""

    def __init__(self, options: RabbitOptions, settings: RabbitSettings, context: TriggerContext) -> None:
        self._options, self._settings, self._context = options, settings, context
        self._accepted = Accepted(context.cursors)
        self._came: asyncio.Queue[_Message | None] = asyncio.Queue()
        self._channel: Any = None
        self._name = f"functiond-{context.trigger_id}-{options.exchange_name}"[:120]

    async def begin(self, connection: Any) -> None:
        connection.close_callbacks.add(self._lost)
        self._channel = channel = await connection.channel()
        channel.close_callbacks.add(self._lost)
        # As many again are on their way while a batch is being written.
        await channel.set_qos(prefetch_count=2 * self._options.batch_size)
        exchange = await channel.get_exchange(self._options.exchange_name)
        queue = await channel.declare_queue(self._name, durable=True, arguments={"x-expires": EXPIRES})
        await queue.bind(exchange)
        await queue.consume(self._put)

    async def step(self) -> None:
        batch: list[_Message] = []
        with anyio.move_on_after(self._settings.check_every):
            batch.append(await self._get())
        if not batch:
            await self._check()
            return
        with anyio.move_on_after(self._settings.batch_wait):
            while len(batch) < self._options.batch_size and self._size(batch) < self._settings.batch_bytes:
                batch.append(await self._get())
        await self._accept(batch)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _put(self, message: Any) -> None:
        known = mark(message.message_id, message.body) if message.message_id else ""
        topic = self._options.exchange_name
        self._came.put_nowait(_Message(topic=topic, value=message.body, mark=known, ack=message.ack))

    def _lost(self, *_: Any) -> None:
        self._came.put_nowait(None)

    async def _get(self) -> _Message:
        message = await self._came.get()
        if message is None:
            raise ConnectionError("the broker has closed the connection")
        return message

    def _size(self, batch: list[_Message]) -> int:
        return sum(len(message.value) for message in batch)

    async def _check(self) -> None:
        """A queue that someone deletes says nothing. Raises if it is no longer read."""
        with anyio.fail_after(PATIENCE):
            found = await self._channel.declare_queue(self._name, passive=True)
        if not found.declaration_result.consumer_count:
            raise ConnectionError(f"queue {self._name} is not read any more")

    async def _accept(self, batch: list[_Message]) -> None:
        fresh = {message.mark or str(place): message for place, message in enumerate(batch)}
        fresh = {name: message for name, message in fresh.items() if message.mark not in self._accepted}
        noted = self._accepted.next(message.mark for message in fresh.values() if message.mark)
        envelope = {
            "event_version": "v1.0",
            "event_time": int(self._context.plugin.clock.now()),
            "trigger_type": "RABBITMQ",
            "region": self._context.plugin.region,
            "instance_id": self._options.instance_id,
        }
        payloads = events(fresh.values(), envelope, self._settings.batch_bytes)
        await self._context.accept_batch(payloads, cursor(noted) if noted.marks else None)
        self._accepted.note(noted)
        await batch[-1].ack(multiple=True)
