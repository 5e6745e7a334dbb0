"""Queue of a trigger: its binding to the exchange, which is looked at every second, and its window.

A broker tells no consumer that an exchange was deleted and made anew, and that its bindings are gone. A *guard* shows
it: an exchange of the trigger's own, which gets no messages, and from which one binding leads to the trigger's
exchange. The broker deletes the guard together with this binding.

A look binds the queue again, since somebody may have removed the binding. It fails if the exchange or the guard is
missing. To save CPU, all triggers look at the same moments, and the broker answers failed looks and every tenth one.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins._shared.connections import deadline
from plugins.rabbitmq.connection import DEADLINE, EVERYTHING, BrokerRefused, refusal
from plugins.rabbitmq.options import RabbitOptions, RabbitSettings

#: Messages in the window while their size is unknown.
FIRST = 32
#: Factor for the largest size after each batch of smaller messages.
FADES = 0.8
#: Arguments of the queue. Classic, whatever the broker's default: a quorum queue drops messages after 20 deliveries.
#: ``x-expires``: milliseconds without a reader after which the broker deletes it.
ARGUMENTS = {"x-queue-type": "classic", "x-expires": 7 * 24 * 3600 * 1000}
GUARD = {"exchange_type": "fanout", "durable": True, "auto_delete": True, "internal": True}
#: A declaration that brokers always refuse, with the actual type of an exchange, since an argument is not valid.
PROBE = {"exchange_type": "fanout", "durable": True, "arguments": {"alternate-exchange": True}}
#: names of the cursors with the exchange to which the queue is bound, and the time at which it was known to be bound
EXCHANGE, SEEN = "exchange", "seen"
#: Looks from one answer of the broker to the next.
ANSWERED = 10


class PrefetchWindow:
    """Number of messages that a broker sends before the first is acknowledged, since brokers limit no bytes.

    Two full batches, or fewer messages if two batches of recent sizes would exceed ``room`` bytes. The window starts
    small. When larger messages follow, those that the broker has already sent are not limited by the new size.
    """

    def __init__(self, batch: int, room: int) -> None:
        self._most, self._room, self._largest = 2 * batch, room, 0.0
        self.size = min(self._most, FIRST)

    @property
    def batch(self) -> int:
        """Number of messages in a batch: half of the window. The broker sends the other half meanwhile."""
        return max(1, self.size // 2)

    def adapt(self, largest: int) -> bool:
        """Adapt the window to the largest message of a batch, in bytes. Return whether its size has changed."""
        self._largest = max(largest, self._largest * FADES)
        wanted = max(1, min(self._most, int(self._room / max(1.0, self._largest))))
        # A change costs two round trips, so the size changes only by a factor of two or more.
        if not (wanted <= self.size / 2 or wanted >= self.size * 2 or self.size < wanted == self._most):
            return False
        self.size = wanted
        return True


class BoundQueue:
    """Queue of one trigger, with its binding and its consumer."""

    def __init__(self, options: RabbitOptions, settings: RabbitSettings, context: TriggerContext, channel: Any) -> None:
        self._exchange, self._theirs, self._context = options.exchange_name, options.queue, context
        self.channel, self._every = channel, settings.check_every
        self._refusal = partial(refusal, channel.connection)
        self._own = f"functiond-{context.trigger_id}"  #: name of the trigger's queue, and of the guard
        self._queue = self._theirs or self._own
        self._former = context.cursors.get(EXCHANGE, b"").decode() or self._exchange
        self._seen = float(context.cursors.get(SEEN, 0)) if self._former == self._exchange else 0.0
        self._stored = 0.0
        self._problem = self._consumer = ""
        self._guarded = False
        self._deleted = asyncio.Event()  #: set until the queue, which was deleted, is read again
        self._received: asyncio.Queue[Any] = asyncio.Queue()
        self._last_tag = 0
        self._unread = 0  #: received and unread messages at the last answer of the broker
        # Twice a batch, so that the next one is received while one is being written.
        self.window = PrefetchWindow(options.batch_size, 2 * settings.batch_bytes)

    async def get(self) -> Any:
        """Wait for the next message, and return it."""
        message = await self._received.get()
        if message.delivery_tag != self._last_tag + 1:  # the last of a batch is acknowledged with all before it
            raise ConnectionError(f"message {self._last_tag + 1} is missing")
        self._last_tag = message.delivery_tag
        return message

    def cursor(self) -> dict[str, bytes]:
        """Return the cursors to store with the next batch, if any."""
        if self._seen == self._stored:
            return {}
        self._stored = self._seen
        return {EXCHANGE: self._exchange.encode(), SEEN: b"%.3f" % self._seen}

    async def adapt(self, largest: int) -> None:
        """Adapt the window to the largest message of a batch, in bytes."""
        if self.window.adapt(largest) and not self._deleted.is_set():
            await self._consume()

    async def run(self, task_status: TaskStatus[None]) -> None:
        """Make the queue and read it. Then look every second, and make what is missing."""
        try:
            await self._ensure()
        except BrokerRefused as refused:
            raise BrokerRefused(self._since(refused)) from None
        await self._context.accept_batch([], self.cursor())
        self.channel.on_consumer_cancel_callbacks.add(lambda _: self._deleted.set())
        await self._consume()
        task_status.started()
        while True:
            if not self._problem:
                await self._refusal(self._look, within=math.inf)
            try:
                await self._ensure()
            except BrokerRefused as refused:
                self._problem = str(refused)
                self._context.report_problem(self._since(refused))
                await anyio.sleep(self._every)
            else:
                if self._deleted.is_set():
                    await self._consume()

    async def delete(self) -> None:
        """Delete the queue and the guard of a trigger that was deleted."""
        await self._refusal(lambda c: c.queue_delete(self._own), lambda c: c.exchange_delete(self._own))

    # --- inside ---------------------------------------------------------------------------------------------

    def _since(self, refused: BrokerRefused) -> str:
        return f"{refused}; no messages arrive since {_utc(self._seen)} UTC" if self._seen else str(refused)

    async def _consume(self) -> None:
        """Start a new consumer with the current window, since brokers cannot change that of an existing consumer."""
        self._deleted.clear()
        with deadline("the broker did not start a consumer", DEADLINE):
            if self._consumer:
                await self.channel.basic_cancel(self._consumer)
            await self.channel.basic_qos(prefetch_count=self.window.size)
            self._consumer = (await self.channel.basic_consume(self._queue, self._received.put_nowait)).consumer_tag

    async def _ensure(self) -> None:
        """Make what is missing of queue, guard and binding, and report messages that may not have arrived meanwhile.

        Raises BrokerRefused if the broker has no such exchange, or no such queue that the options name.
        """
        queue, gone, lost = self._queue, list[str](), 0
        absent = await self._refusal(lambda c: c.queue_declare(queue, passive=True))
        if absent or self._deleted.is_set():
            self._deleted.set()
            lost = max(0, self._unread - self._last_tag - self._received.qsize())
            gone.append(f"queue {queue} was deleted" + f" with {lost} unread messages" * bool(lost))
        if self._theirs and absent:
            raise BrokerRefused(absent)
        if not self._theirs and await self._bind():
            gone.append(f"exchange {self._exchange} was deleted and made anew")
        now = self._context.plugin.clock.now()
        if self._seen and (gone or self._problem):
            span = f"messages sent between {_utc(self._seen)} and {_utc(now)} UTC may not have arrived"
            self._context.report_lost(f"{' and '.join(gone) or self._problem}: {span}", lost)
        self._seen, self._unread, self._problem = now, 0, ""
        self._context.report_problem("")

    async def _bind(self) -> bool:
        """Make the trigger's queue, guard and binding if they are missing. Return whether the guard was."""
        queue, exchange, former = self._queue, self._exchange, self._former
        await self._check_type()
        same = former == exchange
        unused = "in use" not in await self._refusal(lambda c: c.exchange_delete(self._own, if_unused=same))
        denied = unused and await self._refusal(
            lambda c: c.exchange_declare(self._own, **GUARD),
            lambda c: c.exchange_bind(exchange, self._own),
        )
        if denied and "ACCESS_REFUSED" in denied:
            self._context.report_notice(f"nothing shows whether {exchange} is made anew: {denied}")
        elif denied:
            raise BrokerRefused(denied)
        self._guarded = not denied
        refused = await self._refusal(
            lambda c: c.queue_declare(queue, durable=True, arguments=ARGUMENTS),
            lambda c: c.queue_bind(queue, exchange, EVERYTHING),
            # messages of the former exchange in the queue are still read
            *[lambda c: c.queue_unbind(queue, former, EVERYTHING)] * (not same),
        )
        if refused:
            raise BrokerRefused(refused)
        self._former = exchange
        if unused:  # the exchange may have been made anew since its type was checked
            await self._check_type()
        return unused and not denied

    async def _check_type(self) -> None:
        exchange = self._exchange
        if "current is 'direct'" in await self._refusal(lambda c: c.exchange_declare(exchange, **PROBE)):
            raise BrokerRefused(f"{exchange} is a direct exchange: use a fanout or topic exchange for all messages")

    async def _look(self, channel: Any) -> None:
        """Look every second until something is missing, for which the broker closes the channel."""
        from aiormq.abc import ChannelFrame
        from pamqp.commands import Exchange, Queue

        bind = Queue.Bind(queue=self._queue, exchange=self._exchange, routing_key=EVERYTHING, nowait=True)
        find = Exchange.Declare(exchange=self._own, passive=True, nowait=True)
        look = ChannelFrame.marshall(channel.number, [bind] * (not self._theirs) + [find] * self._guarded)
        loop = asyncio.get_running_loop()
        for number in itertools.count(hash(self._own)):  # else all triggers asked at the same moment
            if channel.is_closed or self._deleted.is_set():
                return
            channel.write_queue.put_nowait(look)
            if number % ANSWERED == 0:
                now = self._context.plugin.clock.now()
                unread = (await channel.queue_declare(self._queue, passive=True)).message_count
                self._seen, self._unread = now, unread + self._last_tag + self._received.qsize()
            await asyncio.sleep(self._every - loop.time() % self._every)


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
