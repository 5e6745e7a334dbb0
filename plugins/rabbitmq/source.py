"""The source of RABBITMQ: a queue of the trigger's own, acknowledged once its messages are safe here.

The queue is bound to the exchange before the trigger counts as running, keeps what comes while the engine is away, and
goes with the trigger. Where the broker could not be told of that, it drops the queue a week after its last reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import TriggerContext
from plugins._shared.batches import envelope, events
from plugins._shared.deadline import deadline
from plugins.rabbitmq.accepted import Accepted, mark_of
from plugins.rabbitmq.connection import DEADLINE, is_direct, opened
from plugins.rabbitmq.options import RabbitOptions
from plugins.rabbitmq.settings import RabbitSettings
from plugins.rabbitmq.window import Window

#: A classic queue, whatever is usual at the broker: a quorum queue throws away what has come back 20 times.
#: Milliseconds that it is kept when nobody reads it.
ARGUMENTS = {"x-queue-type": "classic", "x-expires": 7 * 24 * 3600 * 1000}
#: The cursor that says what the queue is bound to.
EXCHANGE = "exchange"
#: A fanout exchange looks at no key, and one of topics takes this for all.
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
                    await reader.leave()


class _Message(Struct, frozen=True, kw_only=True):
    topic: str
    value: bytes
    mark: bytes  #: empty: without an id
    tag: int


class _Reader:
    """One run. What came waits in a queue; None in it means that the broker sends no more."""

    def __init__(self, options: RabbitOptions, settings: RabbitSettings, context: TriggerContext, channel: Any) -> None:
        self._options, self._settings, self._context, self._channel = options, settings, context, channel
        self._queue = f"functiond-{context.trigger_id}"
        self._accepted = Accepted(context.cursors)
        self._came: asyncio.Queue[Any] = asyncio.Queue()
        self._last_tag = 0
        # As many again are on their way while a batch is being written.
        self._window = Window(options.batch_size, 2 * settings.batch_bytes)
        self._consumer = ""

    async def begin(self) -> None:
        exchange, former = self._options.exchange_name, self._context.cursors.get(EXCHANGE, b"").decode()
        with deadline("the broker did not set up the queue", DEADLINE):
            await self._channel.queue_declare(self._queue, durable=True, arguments=ARGUMENTS)
            await self._bind()
            if await is_direct(self._channel, exchange):
                raise ValueError(f"{exchange} is a direct exchange: only fanout and topic ones give all messages")
            if former not in ("", exchange):  # what has come from there is read
                await self._channel.queue_unbind(self._queue, former, EVERYTHING)
            self._channel.on_consumer_cancel_callbacks.add(lambda _: self._came.put_nowait(None))
        await self._consume()
        if former != exchange:
            await self._context.accept_batch([], {EXCHANGE: exchange.encode()})

    async def step(self) -> None:
        batch: list[_Message] = []
        with anyio.move_on_after(self._settings.check_every):
            batch.append(await self._get())
        if not batch:
            # Who deletes an exchange and makes it again has taken the binding away, and nobody tells.
            with deadline("the broker did not look at the exchange", DEADLINE):
                await self._bind()
            return
        size = len(batch[0].value)
        with anyio.move_on_after(self._settings.batch_wait):
            while len(batch) < self._window.batch and size < self._settings.batch_bytes:
                batch.append(await self._get())
                size += len(batch[-1].value)
        await self._accept(batch)
        if self._window.saw(max(len(message.value) for message in batch)):
            await self._consume()

    async def leave(self) -> None:
        """The trigger is gone. What was under way on the channel may have closed it."""
        with anyio.move_on_after(DEADLINE, shield=True):
            channel = await self._channel.connection.channel(publisher_confirms=False)
            await channel.queue_delete(self._queue)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _bind(self) -> None:
        await self._channel.queue_bind(self._queue, self._options.exchange_name, EVERYTHING)

    async def _consume(self) -> None:
        """By another consumer: the broker changes the window of none that it has."""
        with deadline("the broker did not begin to send", DEADLINE):
            if self._consumer:
                await self._channel.basic_cancel(self._consumer)
            await self._channel.basic_qos(prefetch_count=self._window.size)
            self._consumer = (await self._channel.basic_consume(self._queue, self._came.put_nowait)).consumer_tag

    async def _get(self) -> _Message:
        message = await self._came.get()
        if message is None:
            raise ConnectionError(f"queue {self._queue} was deleted")
        if message.delivery_tag != self._last_tag + 1:  # the last of a batch is acknowledged with all before it
            raise ConnectionError(f"message {self._last_tag + 1} did not come")
        self._last_tag = message.delivery_tag
        message_id = message.header.properties.message_id
        return _Message(
            topic=self._options.exchange_name,
            value=message.body,
            mark=mark_of(message_id, message.body) if message_id else b"",
            tag=message.delivery_tag,
        )

    async def _accept(self, batch: Sequence[_Message]) -> None:
        fresh = self._fresh(batch)
        cursor = self._accepted.cursor([message.mark for message in fresh if message.mark])
        head = envelope(self._context, "RABBITMQ", self._options.instance_id)
        await self._context.accept_batch(events(fresh, head, self._settings.batch_bytes), cursor)
        self._accepted.note(cursor)
        await self._channel.basic_ack(batch[-1].tag, multiple=True)

    def _fresh(self, batch: Sequence[_Message]) -> Sequence[_Message]:
        """Those not accepted yet, each once."""
        seen: set[bytes] = set()
        fresh = []
        for message in batch:
            if message.mark not in seen and message.mark not in self._accepted:
                fresh.append(message)
                seen.update([message.mark] if message.mark else [])
        return fresh
