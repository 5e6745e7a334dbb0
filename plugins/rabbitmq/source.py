"""Source of RABBITMQ: reads a queue that only this trigger uses. Messages are acknowledged after they are on disk.

The queue is bound to the exchange before the trigger counts as running. Messages collect in the queue while the engine
is stopped. The queue is deleted with the trigger. If the broker cannot be reached at that time, the broker deletes the
queue itself after a week without a reader. A trigger may also read an existing queue, which it leaves as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import TriggerContext
from plugins._shared.batches import envelope, events, ordering_key
from plugins.rabbitmq.accepted import Accepted, mark_of
from plugins.rabbitmq.binding import BoundQueue
from plugins.rabbitmq.connection import DEADLINE, opened
from plugins.rabbitmq.options import RabbitOptions, RabbitSettings


class RabbitTrigger:
    def __init__(self, options: RabbitOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: RabbitSettings = context.plugin.settings
        async with opened(settings.broker(self._options), self._options.vhost) as channel:
            queue = BoundQueue(self._options, settings, context, channel)
            reader = _Reader(self._options, context, queue)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(queue.run, task_status)
                    while True:
                        await reader.step()
            finally:
                if context.deleted:
                    with anyio.move_on_after(DEADLINE, shield=True):
                        await queue.delete()


class _Message(Struct, frozen=True, kw_only=True):
    topic: str
    key: str  #: routing key
    value: bytes
    mark: bytes  #: empty if the message has no id
    tag: int


class _Reader:
    """Reader of the trigger's queue from one start of the source to its end."""

    def __init__(self, options: RabbitOptions, context: TriggerContext, queue: BoundQueue) -> None:
        self._options, self._context, self._queue = options, context, queue
        self._settings: RabbitSettings = context.plugin.settings
        self._accepted = Accepted(context.cursors)

    async def step(self) -> None:
        batch = [await self._get()]
        size = len(batch[0].value)
        with anyio.move_on_after(self._settings.batch_wait):
            while len(batch) < self._queue.window.batch and size < self._settings.batch_bytes:
                batch.append(await self._get())
                size += len(batch[-1].value)
        await self._accept(batch)
        await self._queue.adapt(max(len(message.value) for message in batch))

    # --- inside ---------------------------------------------------------------------------------------------

    async def _get(self) -> _Message:
        message = await self._queue.get()
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
        plugin = self._context.plugin
        head = envelope(plugin.clock.now(), plugin.region, "RABBITMQ", self._options.instance_id)
        key_of = _key_of if self._options.ordering else None
        made = events(fresh, head, self._settings.batch_bytes, key_of=key_of)
        await self._context.accept_batch(made, {**marks, **self._queue.cursor()})
        self._accepted.note(marks)
        await self._queue.channel.basic_ack(batch[-1].tag, multiple=True)

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
