"""Binding of a trigger's queue to its exchange, which is looked at every second.

A broker tells no consumer that an exchange was deleted and made anew, and that its bindings are gone. A *guard* shows
it: an exchange of the trigger's own, which gets no messages, and from which one binding leads to the trigger's
exchange. The broker deletes the guard together with this binding.

A look binds the queue again, since somebody may have removed the binding. It fails if the exchange or the guard is
missing. To save CPU, all triggers look at the same moments, and the broker answers failed looks and every tenth one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio

from engine import TriggerContext
from plugins.rabbitmq.connection import EVERYTHING, BrokerRefused, look_frame, refusal, unread_messages
from plugins.rabbitmq.options import RabbitOptions

#: Arguments of the queue. Classic, whatever the broker's default: a quorum queue drops messages after 20 deliveries.
#: ``x-expires``: milliseconds without a reader after which the broker deletes it.
ARGUMENTS = {"x-queue-type": "classic", "x-expires": 7 * 24 * 3600 * 1000}
#: names of the cursors with the exchange to which the queue is bound, and the time at which it was known to be bound
EXCHANGE, SEEN = "exchange", "seen"
#: Looks from one answer of the broker to the next.
ANSWERED = 10
#: Seconds from one storage of the cursors to the next.
KEPT = 60.0


class Binding:
    """Queue and binding of one trigger. ``every`` is the number of seconds between two looks.

    ``received`` is the number of messages that the broker has sent, which the reader counts. ``lost_reader`` is set
    from a deletion of the queue until it can be read again.
    """

    def __init__(self, options: RabbitOptions, context: TriggerContext, connection: Any, every: float) -> None:
        self._exchange, self._theirs, self._context, self._every = options.exchange_name, options.queue, context, every
        self._connection, self._refusal = connection, partial(refusal, connection)
        self._own = f"functiond-{context.trigger_id}"  #: name of the trigger's queue, and of the guard
        self.queue = self._theirs or self._own
        self._former = context.cursors.get(EXCHANGE, b"").decode() or self._exchange
        self._seen = float(context.cursors.get(SEEN, 0)) if self._former == self._exchange else 0.0
        self._stored = 0.0
        self._guarded = False
        self.received = self._unread = 0
        self._problem = ""
        self.lost_reader, self._wake = False, asyncio.Event()

    def cursor(self) -> dict[str, bytes]:
        """Return the cursors to store with the next batch, if any."""
        if self._seen < self._stored + KEPT:
            return {}
        self._stored = self._seen
        return {EXCHANGE: self._exchange.encode(), SEEN: b"%.3f" % self._seen}

    def cancelled(self, *_: Any) -> None:
        """Look at once, since the broker has cancelled the consumer: the queue was deleted."""
        self.lost_reader = True
        self._wake.set()

    async def ensure(self) -> None:
        """Make what is missing of queue, guard and binding, and report messages that may not have arrived meanwhile.

        Raises BrokerRefused if the broker has no such exchange, or no such queue that the options name.
        """
        queue, lost, missing = self.queue, max(0, self._unread - self.received), []
        reason = await self._refusal(lambda channel: channel.queue_declare(queue, passive=True))
        if self.lost_reader or reason:
            missing.append(f"queue {queue} was deleted" + f" with {lost} unread messages" * bool(lost))
        if not self._theirs:
            await self._demand(lambda channel: channel.queue_declare(queue, durable=True, arguments=ARGUMENTS))
            if await self._guard():
                missing.append(f"exchange {self._exchange} was deleted and made anew")
            await self._bind()
        elif reason:
            raise BrokerRefused(reason)
        now = self._context.plugin.clock.now()
        if self._seen and (missing or self._problem):
            span = f"messages sent between {_utc(self._seen)} and {_utc(now)} UTC may not have arrived"
            self._context.report_lost(f"{' and '.join(missing) or self._problem}: {span}", lost if missing else 0)
        self._seen, self._unread, self._problem = now, 0, ""
        self._context.report_problem("")

    async def watch(self, resume: Callable[[], None]) -> None:
        """Look every second, and make what is missing. Call ``resume`` when a deleted queue can be read again."""
        while True:
            await self._look()
            try:
                await self.ensure()
            except BrokerRefused as refused:
                self._problem = str(refused)
                self._context.report_problem(f"{refused}; no messages arrive since {_utc(self._seen)} UTC")
                await anyio.sleep(self._every)
                continue
            if self.lost_reader:
                self.lost_reader = False
                resume()

    async def delete(self) -> None:
        """Delete the queue and the guard of a trigger that was deleted."""
        await self._refusal(lambda channel: channel.queue_delete(self._own))
        await self._refusal(lambda channel: channel.exchange_delete(self._own))

    # --- inside ---------------------------------------------------------------------------------------------

    async def _demand(self, *calls: Callable[[Any], Any]) -> None:
        if reason := await self._refusal(*calls):
            raise BrokerRefused(reason)

    async def _guard(self) -> bool:
        """Make the guard if it is missing, or has no binding. Return whether it was so."""
        same = self._former == self._exchange
        if "in use" in await self._refusal(lambda channel: channel.exchange_delete(self._own, if_unused=same)):
            self._guarded = True
            return False
        kind = {"exchange_type": "fanout", "durable": True, "auto_delete": True, "internal": True}
        reason = await self._refusal(
            lambda channel: channel.exchange_declare(self._own, **kind),
            lambda channel: channel.exchange_bind(self._exchange, self._own),
        )
        self._guarded = not reason
        if "ACCESS_REFUSED" in reason:
            self._context.report_notice(f"nothing shows whether {self._exchange} is made anew: {reason}")
        elif reason:
            raise BrokerRefused(reason)
        return self._guarded

    async def _bind(self) -> None:
        exchange, former = self._exchange, self._former
        await self._demand(lambda channel: channel.queue_bind(self.queue, exchange, EVERYTHING))
        never = {"alternate-exchange": True}  # not valid: the broker always refuses this, and names the actual type
        reason = await self._refusal(
            lambda channel: channel.exchange_declare(exchange, exchange_type="fanout", durable=True, arguments=never)
        )
        if "current is 'direct'" in reason:
            raise BrokerRefused(
                f"{exchange} is a direct exchange: use a fanout or topic exchange, which deliver all messages"
            )
        if former != exchange:  # messages of the former exchange in the queue are still read
            await self._demand(lambda channel: channel.queue_unbind(self.queue, former, EVERYTHING))
            self._former = exchange

    async def _look(self) -> None:
        """Look every second until something is missing. Return at once if it is known to be."""
        if self._problem:
            return
        channel = await self._connection.channel(publisher_confirms=False)
        wake = self._wake = asyncio.Event()
        channel.closing.add_done_callback(lambda _: wake.set())
        look = look_frame(channel, self.queue, self._exchange * (not self._theirs), self._own * self._guarded)
        loop, every, asks = asyncio.get_running_loop(), self._every, ANSWERED * self._every
        phase = hash(self._own) % 1000 / 1000 * asks  # else all triggers asked at the same moment
        timer: asyncio.TimerHandle

        def look_again() -> None:
            nonlocal timer
            if not channel.is_closed:
                channel.write_queue.put_nowait(look)
                timer = loop.call_at((loop.time() / every // 1 + 1) * every, look_again)

        timer = loop.call_at(loop.time(), look_again)
        try:
            while not self.lost_reader:
                with anyio.move_on_after(asks - (loop.time() + phase) % asks):
                    await wake.wait()
                    break
                now = self._context.plugin.clock.now()
                if (unread := await unread_messages(channel, self.queue)) is None:
                    break
                self._seen, self._unread = now, unread + self.received
        finally:
            timer.cancel()
        await channel.close()


def _utc(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S}"
