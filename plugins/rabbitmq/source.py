"""Source of RABBITMQ: reads a queue that only this trigger uses. Messages are acknowledged after they are on disk.

The queue is bound to the exchange before the trigger counts as running. Messages collect in the queue while the engine
is stopped. The queue is deleted with the trigger. If the broker cannot be reached at that time, the broker deletes the
queue itself after a week without a reader. A trigger may also read an existing queue, which it leaves as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import TriggerContext
from plugins._shared.batches import envelope, events, ordered_events
from plugins._shared.deadline import deadline
from plugins._shared.ordering import by_key, ordering_key
from plugins.rabbitmq.accepted import Accepted, mark_of
from plugins.rabbitmq.binding import KEPT, Binding
from plugins.rabbitmq.connection import DEADLINE, opened
from plugins.rabbitmq.options import RabbitOptions
from plugins.rabbitmq.settings import RabbitSettings
from plugins.rabbitmq.window import PrefetchWindow


class RabbitTrigger:
    def __init__(self, options: RabbitOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: RabbitSettings = context.plugin.settings
        async with opened(settings.broker(self._options), self._options.vhost) as channel:
            binding = Binding(self._options, context, channel.connection, settings.check_every)
            reader = _Reader(self._options, settings, context, channel, binding)
            try:
                async with anyio.create_task_group() as tasks:
                    await reader.begin()
                    task_status.started()
                    tasks.start_soon(binding.watch, reader.consume)
                    while True:
                        await reader.step()
            finally:
                if context.deleted:
                    with anyio.move_on_after(DEADLINE, shield=True):
                        await binding.delete()


class _Message(Struct, frozen=True, kw_only=True):
    topic: str
    key: str  #: routing key
    value: bytes
    mark: bytes  #: empty if the message has no id
    tag: int


class _Reader:
    """Reader of the trigger's queue from one start of the source to its end.

    Received messages wait in ``_received``.
    """

    def __init__(
        self, options: RabbitOptions, settings: RabbitSettings, context: TriggerContext, channel: Any, binding: Binding
    ) -> None:
        self._options, self._settings, self._context, self._channel = options, settings, context, channel
        self._binding = binding
        self._accepted = Accepted(context.cursors)
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._last_tag = 0
        # Twice a batch, so that the next one is received while one is being written.
        self._window = PrefetchWindow(options.batch_size, 2 * settings.batch_bytes)
        self._consumer = ""

    async def begin(self) -> None:
        await self._binding.ensure()
        self._channel.on_consumer_cancel_callbacks.add(self._binding.cancelled)
        await self.consume()
        await self._context.accept_batch([], self._binding.cursor())

    async def consume(self) -> None:
        """Start a new consumer with the current window, since brokers cannot change that of an existing consumer."""
        self._binding.lost_reader = False
        with deadline("the broker did not start a consumer", DEADLINE):
            if self._consumer:
                await self._channel.basic_cancel(self._consumer)
            await self._channel.basic_qos(prefetch_count=self._window.size)
            self._consumer = (await self._channel.basic_consume(self._binding.queue, self._receive)).consumer_tag

    async def step(self) -> None:
        batch: list[_Message] = []
        with anyio.move_on_after(KEPT):
            batch.append(await self._get())
        if not batch:
            await self._context.accept_batch([], self._binding.cursor())
            return
        size = len(batch[0].value)
        with anyio.move_on_after(self._settings.batch_wait):
            while len(batch) < self._window.batch and size < self._settings.batch_bytes:
                batch.append(await self._get())
                size += len(batch[-1].value)
        await self._accept(batch)
        if self._window.adapt(max(len(message.value) for message in batch)) and not self._binding.lost_reader:
            await self.consume()

    # --- inside ---------------------------------------------------------------------------------------------

    def _receive(self, message: Any) -> None:
        self._binding.received += 1
        self._received.put_nowait(message)

    async def _get(self) -> _Message:
        message = await self._received.get()
        if message.delivery_tag != self._last_tag + 1:  # the last of a batch is acknowledged with all before it
            raise ConnectionError(f"message {self._last_tag + 1} is missing")
        self._last_tag = message.delivery_tag
        message_id = message.header.properties.message_id
        return _Message(
            topic=self._options.exchange_name,
            key=message.delivery.routing_key or "",
            value=message.body,
            mark=mark_of(message_id, message.body) if message_id else b"",
            tag=message.delivery_tag,
        )

    async def _accept(self, batch: Sequence[_Message]) -> None:
        fresh = self._fresh(batch)
        marks = self._accepted.cursor([message.mark for message in fresh if message.mark])
        cursor = {**marks, **self._binding.cursor()}
        head = envelope(self._context, "RABBITMQ", self._options.instance_id)
        limit = self._settings.batch_bytes
        ordered = self._options.ordering == "record_key"
        await self._context.accept_batch(
            ordered_events(by_key(fresh, _key_of), head, limit) if ordered else events(fresh, head, limit), cursor
        )
        self._accepted.note(marks)
        await self._channel.basic_ack(batch[-1].tag, multiple=True)

    def _fresh(self, batch: Sequence[_Message]) -> Sequence[_Message]:
        """Return the messages of a batch that were not accepted before, each once."""
        seen: set[bytes] = set()
        fresh = []
        for message in batch:
            if message.mark not in seen and message.mark not in self._accepted:
                fresh.append(message)
                seen.update([message.mark] if message.mark else [])
        return fresh


def _key_of(message: Any) -> str:
    return ordering_key(message.key.encode(), f"RABBITMQ:{message.topic}")
