"""Source of RABBITMQ: reads a queue that only this trigger uses. Messages are acknowledged after they are on disk.

The queue is bound to the exchange before the trigger counts as running. Messages collect in the queue while the engine
is stopped. The queue is deleted with the trigger. If the broker cannot be reached at that time, the broker deletes the
queue itself after a week without a reader.
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
from plugins.rabbitmq.connection import DEADLINE, is_direct, opened
from plugins.rabbitmq.options import RabbitOptions
from plugins.rabbitmq.settings import RabbitSettings
from plugins.rabbitmq.window import PrefetchWindow

#: Arguments of the queue. Classic, whatever the broker's default: a quorum queue drops messages after 20 deliveries.
#: ``x-expires``: milliseconds without a reader after which the broker deletes it.
ARGUMENTS = {"x-queue-type": "classic", "x-expires": 7 * 24 * 3600 * 1000}
#: name of the cursor with the exchange to which the queue is bound
EXCHANGE = "exchange"
#: routing key for all messages of a topic exchange; a fanout exchange ignores it
EVERYTHING = "#"


class RabbitTrigger:
    def __init__(self, options: RabbitOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: RabbitSettings = context.plugin.settings
        async with opened(settings.broker(self._options), self._options.vhost) as channel:
            reader = _Reader(self._options, settings, context, channel)
            try:
                await reader.begin()
                task_status.started()
                while True:
                    await reader.step()
            finally:
                if context.deleted:
                    await reader.delete_queue()


class _Message(Struct, frozen=True, kw_only=True):
    topic: str
    key: str  #: routing key
    value: bytes
    mark: bytes  #: empty if the message has no id
    tag: int


class _Reader:
    """Reader of the trigger's queue from one start of the source to its end.

    Received messages wait in ``_received``; None means that the broker has deleted the queue.
    """

    def __init__(self, options: RabbitOptions, settings: RabbitSettings, context: TriggerContext, channel: Any) -> None:
        self._options, self._settings, self._context, self._channel = options, settings, context, channel
        self._queue = f"functiond-{context.trigger_id}"
        self._accepted = Accepted(context.cursors)
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._last_tag = 0
        # Twice a batch, so that the next one is received while one is being written.
        self._window = PrefetchWindow(options.batch_size, 2 * settings.batch_bytes)
        self._consumer = ""

    async def begin(self) -> None:
        exchange, former = self._options.exchange_name, self._context.cursors.get(EXCHANGE, b"").decode()
        with deadline("the broker did not set up the queue", DEADLINE):
            await self._channel.queue_declare(self._queue, durable=True, arguments=ARGUMENTS)
            await self._bind()
            if await is_direct(self._channel, exchange):
                raise ValueError(
                    f"{exchange} is a direct exchange: use a fanout or topic exchange, which deliver all messages"
                )
            if former not in ("", exchange):  # messages of the former exchange in the queue are still read
                await self._channel.queue_unbind(self._queue, former, EVERYTHING)
            self._channel.on_consumer_cancel_callbacks.add(lambda _: self._received.put_nowait(None))
        await self._consume()
        if former != exchange:
            await self._context.accept_batch([], {EXCHANGE: exchange.encode()})

    async def step(self) -> None:
        batch: list[_Message] = []
        with anyio.move_on_after(self._settings.check_every):
            batch.append(await self._get())
        if not batch:
            # If the exchange was deleted and created again, the binding is lost without notice.
            with deadline("the broker did not renew the binding", DEADLINE):
                await self._bind()
            return
        size = len(batch[0].value)
        with anyio.move_on_after(self._settings.batch_wait):
            while len(batch) < self._window.batch and size < self._settings.batch_bytes:
                batch.append(await self._get())
                size += len(batch[-1].value)
        await self._accept(batch)
        if self._window.adapt(max(len(message.value) for message in batch)):
            await self._consume()

    async def delete_queue(self) -> None:
        """Delete the queue after its trigger was deleted. Uses a new channel, since the current one may be closed."""
        with anyio.move_on_after(DEADLINE, shield=True):
            channel = await self._channel.connection.channel(publisher_confirms=False)
            await channel.queue_delete(self._queue)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _bind(self) -> None:
        await self._channel.queue_bind(self._queue, self._options.exchange_name, EVERYTHING)

    async def _consume(self) -> None:
        """Start a new consumer with the current window, since brokers cannot change that of an existing consumer."""
        with deadline("the broker did not start a consumer", DEADLINE):
            if self._consumer:
                await self._channel.basic_cancel(self._consumer)
            await self._channel.basic_qos(prefetch_count=self._window.size)
            self._consumer = (await self._channel.basic_consume(self._queue, self._received.put_nowait)).consumer_tag

    async def _get(self) -> _Message:
        message = await self._received.get()
        if message is None:
            raise ConnectionError(f"queue {self._queue} was deleted")
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
        cursor = self._accepted.cursor([message.mark for message in fresh if message.mark])
        head = envelope(self._context, "RABBITMQ", self._options.instance_id)
        limit = self._settings.batch_bytes
        ordered = self._options.ordering == "record_key"
        await self._context.accept_batch(
            ordered_events(by_key(fresh, _key_of), head, limit) if ordered else events(fresh, head, limit), cursor
        )
        self._accepted.note(cursor)
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
