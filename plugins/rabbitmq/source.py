"""Source of RABBITMQ: reads a queue that only this trigger uses. Messages are acknowledged after they are on disk.

The queue is bound to the exchange before the trigger counts as running. Messages collect in the queue while the engine
is stopped. The queue is deleted with the trigger. If the broker cannot be reached at that time, the broker deletes the
queue itself after a week without a reader. A trigger may also read an existing queue, which it leaves as it is.

AMQP has no offsets: a broker delivers every message without acknowledgement again. Such messages can be many, since a
killed broker loses the acknowledgements of its last second. Each message with an id has a mark, a hash. The marks of a
batch's messages are stored in the transaction that accepts the batch, in several cursors in rotation. A message without
an id has no mark, because a repeated delivery cannot be distinguished from a second message with the same content. Such
a message may be accepted twice, but is never lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import TriggerContext
from plugins._shared.batches import envelope, events, ordering_key
from plugins._shared.fields import egress_to
from plugins.rabbitmq.binding import BoundQueue
from plugins.rabbitmq.connection import DEADLINE, opened
from plugins.rabbitmq.options import RabbitOptions, RabbitSettings

#: Number of cursors, and of marks in each. A cursor is written again with each batch until it is full.
ROWS, FULL = 16, 1024
#: Bytes of a mark, and of the serial number at the beginning of a cursor, which orders the cursors.
MARK, SERIAL = 8, 8


def mark_of(message_id: str, body: bytes) -> bytes:
    """Return the mark of a message: a hash of its id and content, since several publishers may use the same id."""
    key = blake2b(message_id.encode(), digest_size=32).digest()
    return blake2b(body, digest_size=MARK, key=key).digest()


class Accepted:
    """Marks of accepted messages. ``cursors`` are all cursors of the trigger; cursors without marks are ignored."""

    def __init__(self, cursors: Mapping[str, bytes]) -> None:
        self._rows = {name: value for name, value in cursors.items() if name.isdigit()}
        self._marks = {name: _marks(value) for name, value in self._rows.items()}
        self._last = max(self._rows, key=lambda name: self._rows[name][:SERIAL], default="")

    def __contains__(self, mark: bytes) -> bool:
        return any(mark in marks for marks in self._marks.values())

    def cursor(self, marks: Sequence[bytes]) -> dict[str, bytes]:
        """Return the cursor to store with a batch that has these new marks, or no cursor if there are no marks."""
        if not marks:
            return {}
        row = self._rows.get(self._last, bytes(SERIAL))
        if len(row) >= SERIAL + FULL * MARK:
            row = (int.from_bytes(row[:SERIAL], "big") + 1).to_bytes(SERIAL, "big")
        return {str(int.from_bytes(row[:SERIAL], "big") % ROWS): row + b"".join(marks)}

    def note(self, cursor: Mapping[str, bytes]) -> None:
        """Add the marks of a cursor after it has been stored."""
        for name, row in cursor.items():
            former = self._rows.get(name, b"")
            if former and row.startswith(former):
                self._marks[name] |= _marks(row, len(former))
            else:
                self._marks[name] = _marks(row)
            self._rows[name], self._last = row, name


def _marks(row: bytes, begin: int = SERIAL) -> set[bytes]:
    return {row[start : start + MARK] for start in range(begin, len(row), MARK)}


class RabbitTrigger:
    def __init__(self, options: RabbitOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: RabbitSettings = context.plugin.settings
        limits = egress_to(context.plugin, self._options)
        async with opened(settings.broker(self._options), self._options.vhost, limits) as channel:
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
