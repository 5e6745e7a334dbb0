"""Binding of a trigger's queue to its exchange, which is looked at every second.

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
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio

from engine import TriggerContext
from plugins.rabbitmq.connection import EVERYTHING, BrokerRefused, look_frame, refusal
from plugins.rabbitmq.options import RabbitOptions

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
#: Seconds from one storage of the cursors to the next.
KEPT = 60.0


class Binding:
    """Queue and binding of one trigger. ``every`` is the number of seconds between two looks.

    ``received`` is the number of messages that the broker has sent, which the reader counts. ``lost_reader`` is set
    from a deletion of the queue until the reader reads it again.
    """

    def __init__(self, options: RabbitOptions, context: TriggerContext, connection: Any, every: float) -> None:
        self._exchange, self._theirs, self._context, self._every = options.exchange_name, options.queue, context, every
        self._refusal = partial(refusal, connection)
        self._own = f"functiond-{context.trigger_id}"  #: name of the trigger's queue, and of the guard
        self.queue = self._theirs or self._own
        self._former = context.cursors.get(EXCHANGE, b"").decode() or self._exchange
        self._seen = float(context.cursors.get(SEEN, 0)) if self._former == self._exchange else 0.0
        self._stored = 0.0
        self._problem = ""
        self._guarded = self.lost_reader = False
        self.received = self._unread = 0

    def cursor(self) -> dict[str, bytes]:
        """Return the cursors to store with the next batch, if any."""
        if self._seen < self._stored + KEPT:
            return {}
        self._stored = self._seen
        return {EXCHANGE: self._exchange.encode(), SEEN: b"%.3f" % self._seen}

    def cancelled(self, *_: Any) -> None:
        """Note that the broker has cancelled the consumer, since the queue was deleted."""
        self.lost_reader = True

    async def ensure(self) -> None:
        """Make what is missing of queue, guard and binding, and report messages that may not have arrived meanwhile.

        Raises BrokerRefused if the broker has no such exchange, or no such queue that the options name.
        """
        queue, gone, lost = self.queue, list[str](), 0
        absent = await self._refusal(lambda channel: channel.queue_declare(queue, passive=True))
        if absent or self.lost_reader:
            self.lost_reader, lost = True, max(0, self._unread - self.received)
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

    async def watch(self, resume: Callable[[], Awaitable[None]]) -> None:
        """Look every second, and make what is missing. Call ``resume`` when a deleted queue can be read again."""
        while True:
            if not self._problem:
                await self._refusal(self._look, within=math.inf)
            try:
                await self.ensure()
            except BrokerRefused as refused:
                self._problem = str(refused)
                self._context.report_problem(f"{refused}; no messages arrive since {_utc(self._seen)} UTC")
                await anyio.sleep(self._every)
            else:
                if self.lost_reader:
                    await resume()

    async def delete(self) -> None:
        """Delete the queue and the guard of a trigger that was deleted."""
        await self._refusal(
            lambda channel: channel.queue_delete(self._own), lambda channel: channel.exchange_delete(self._own)
        )

    # --- inside ---------------------------------------------------------------------------------------------

    async def _bind(self) -> bool:
        """Make the trigger's queue, guard and binding if they are missing. Return whether the guard was."""
        queue, exchange, former = self.queue, self._exchange, self._former
        if "current is 'direct'" in await self._refusal(lambda channel: channel.exchange_declare(exchange, **PROBE)):
            raise BrokerRefused(
                f"{exchange} is a direct exchange: use a fanout or topic exchange, which deliver all messages"
            )
        unused = "in use" not in await self._refusal(
            lambda channel: channel.exchange_delete(self._own, if_unused=former == exchange)
        )
        denied = unused and await self._refusal(
            lambda channel: channel.exchange_declare(self._own, **GUARD),
            lambda channel: channel.exchange_bind(exchange, self._own),
        )
        if denied and "ACCESS_REFUSED" in denied:
            self._context.report_notice(f"nothing shows whether {exchange} is made anew: {denied}")
        elif denied:
            raise BrokerRefused(denied)
        self._guarded = not denied
        refused = await self._refusal(
            lambda channel: channel.queue_declare(queue, durable=True, arguments=ARGUMENTS),
            lambda channel: channel.queue_bind(queue, exchange, EVERYTHING),
            # messages of the former exchange in the queue are still read
            *[lambda channel: channel.queue_unbind(queue, former, EVERYTHING)] * (former != exchange),
        )
        if refused:
            raise BrokerRefused(refused)
        self._former = exchange
        return unused and not denied

    async def _look(self, channel: Any) -> None:
        """Look every second until something is missing, for which the broker closes the channel."""
        look = look_frame(channel, self.queue, self._exchange * (not self._theirs), self._own * self._guarded)
        loop = asyncio.get_running_loop()
        for number in itertools.count(hash(self._own)):  # else all triggers asked at the same moment
            if channel.is_closed or self.lost_reader:
                return
            channel.write_queue.put_nowait(look)
            if number % ANSWERED == 0:
                now = self._context.plugin.clock.now()
                unread = (await channel.queue_declare(self.queue, passive=True)).message_count
                self._seen, self._unread = now, unread + self.received
            await asyncio.sleep(self._every - loop.time() % self._every)


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
