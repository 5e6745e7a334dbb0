"""The source of KAFKA and OPENSOURCEKAFKA: reads topics from where its cursors stand.

Each batch and the cursors behind it are one transaction; the broker hears of the offsets only afterwards, so what it
knows is never ahead of what is safe. After a crash the cursors decide, not the broker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins.batches import envelope, events
from plugins.fields import EVENT_LIMIT
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions
from plugins.kafka.positions import Found, begin, name_of, read, written
from plugins.kafka.settings import KafkaSettings, connection, library
from plugins.patience import patience

log = structlog.get_logger("functiond.plugins.kafka")

#: Seconds that one question to the cluster may take.
PATIENCE = 15.0
#: Seconds that a group may take to form.
JOINING = 60.0
#: Milliseconds for what one partition has; the client may wait half a second for another one's answer first.
APART = 1000
#: Seconds that a batch has to be finished when the group takes its partitions away; then it is dropped.
REVOKED = 3.0


class KafkaTrigger:
    def __init__(self, options: KafkaOptions | OpenKafkaOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: KafkaSettings = context.plugin.settings
        async with _consumer(self._options, settings, context) as consumer:
            await _Reader(self._options, settings, context, consumer).run(task_status)


@asynccontextmanager
async def _consumer(
    options: KafkaOptions | OpenKafkaOptions, settings: KafkaSettings, context: TriggerContext
) -> AsyncIterator[Any]:
    consumer = library().AIOKafkaConsumer(
        group_id=f"{settings.group}:{context.function}" if settings.group else f"functiond-{context.trigger_id}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # of what is there once the record at our offset is gone
        session_timeout_ms=int(settings.session_timeout * 1000),
        heartbeat_interval_ms=int(settings.session_timeout * 300),
        max_poll_interval_ms=2**31 - 1,  # a full backlog may keep us from reading for days; the heart goes on
        max_partition_fetch_bytes=EVENT_LIMIT,
        **connection(settings.cluster(options)),
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        with anyio.move_on_after(2, shield=True):
            await consumer.stop()


class _Reader:
    """One run. ``_placed`` are the partitions that are ours and stand where they should; only those are read."""

    def __init__(
        self, options: KafkaOptions | OpenKafkaOptions, settings: KafkaSettings, context: TriggerContext, consumer: Any
    ) -> None:
        self._options, self._settings, self._context, self._consumer = options, settings, context, consumer
        self._ours: frozenset[Any] = frozenset()
        self._placed: set[Any] = set()
        self._told = asyncio.Event()  #: what is ours
        self._gathered: dict[Any, list[Any]] = {}
        self._next: dict[Any, int] = {}  #: offsets behind what was gathered
        self._handing = anyio.Lock()
        self._scope = anyio.CancelScope()

    async def run(self, task_status: TaskStatus[None]) -> None:
        if self._settings.group:
            await self._join()
        else:
            # The client offers no other way to hear of partitions before some are assigned.
            await self._consumer._client.set_topics(self._options.topic_ids)
            self._take_all()
        await self._place()
        task_status.started()
        while True:
            await self._gather()
            await self._hand_over()
            if not self._settings.group:
                self._take_all()
            await self._place()

    # --- whose the partitions are ---------------------------------------------------------------------------

    async def _join(self) -> None:
        self._consumer.subscribe(self._options.topic_ids, listener=_listener(self))
        with _patience("form the group", JOINING):
            while not self._told.is_set():
                await self._consumer.getmany(timeout_ms=200)  # raises what is in the way; its records come again

    def _take_all(self) -> None:
        """Take what partitions there are: at first, and as more are made."""
        everything = frozenset(self._known())
        if everything != self._ours:
            self._consumer.assign(tuple(everything))
            self.assigned(everything)

    def _known(self) -> Iterable[Any]:
        for topic in self._options.topic_ids:
            partitions = self._consumer.partitions_for_topic(topic)
            if not partitions:
                raise ConnectionError(f"there is no topic {topic} at {self._options.cluster}")
            yield from (library().TopicPartition(topic, number) for number in partitions)

    def assigned(self, partitions: Iterable[Any]) -> None:
        self._ours = frozenset(partitions)
        self._placed.clear()
        self._told.set()

    async def revoked(self) -> None:
        """Another engine may read them as soon as this returns."""
        self._ours = frozenset()
        self._placed.clear()
        self._gathered.clear()
        with anyio.move_on_after(REVOKED):
            async with self._handing:
                return
        self._scope.cancel()  # it waits for room in the backlog; whoever gets the partitions reads that again
        async with self._handing:
            return

    # --- where they are begun -------------------------------------------------------------------------------

    async def _place(self) -> None:
        """Until all that is ours stands where it should."""
        while (ours := self._ours) - self._placed:
            with _patience("tell its offsets"):
                starts = await self._starts(ours)
            if ours is not self._ours:
                continue
            new = {name_of(*one): offset for one, offset in starts.items() if self._own().get(name_of(*one)) is None}
            if new:
                cursors = {name: written(self._options.cluster, offset) for name, offset in new.items()}
                await self._context.accept_batch([], cursors)
            if ours is self._ours:
                for one, offset in starts.items():
                    self._consumer.seek(one, offset)
                    self._next[one] = offset
                self._placed |= ours

    async def _starts(self, ours: frozenset[Any]) -> dict[Any, int]:
        first, end = await self._consumer.beginning_offsets(ours), await self._consumer.end_offsets(ours)
        own = self._own()
        topics = {name.rpartition("/")[0] for name in own}
        starts: dict[Any, int] = {}
        for one in ours:
            found = Found(first=first[one], end=end[one], committed=await self._consumer.committed(one))
            mine = own.get(name_of(*one))
            starts[one] = begin(mine, found, topic_known=one.topic in topics, start=self._settings.start)
            if mine is not None and mine < found.first:
                log.warning("records are gone that were not read", partition=name_of(*one), records=found.first - mine)
        return starts

    def _own(self) -> dict[str, int]:
        return read(self._context.cursors, self._options.cluster)

    # --- batches --------------------------------------------------------------------------------------------

    async def _gather(self) -> None:
        """Until the batch is full, or its time is over; without any records, until the cluster has answered."""
        deadline, size = anyio.current_time() + self._settings.check_every, 0
        while (room := self._options.batch_size - sum(map(len, self._gathered.values()))) > 0:
            left = deadline - anyio.current_time()
            try:
                found = await self._consumer.getmany(timeout_ms=max(0, int(left * 1000)), max_records=room)
            except UnicodeDecodeError:
                found = await self._read_apart(room)
            if not self._gathered:
                deadline = anyio.current_time() + self._settings.batch_wait
            for one, records in found.items():
                if records and one in self._placed:  # what came before its place was found comes again
                    self._gathered.setdefault(one, []).extend(records)
                    self._next[one] = records[-1].offset + 1
                    size += sum(len(record.value or b"") for record in records)
            if not found or size >= self._settings.batch_bytes or self._ours - self._placed:
                break
        if not self._gathered:
            await self._check()

    async def _read_apart(self, room: int) -> dict[Any, list[Any]]:
        """The client decodes names of headers, which may be any bytes, and does not say where it could not.

        What it had read by then is lost with that, so it is read again, partition by partition.
        """
        for one in self._placed:
            self._consumer.seek(one, self._next[one])
        for one in random.sample(tuple(self._placed), len(self._placed)):  # none waits for ever behind another
            try:
                if found := await self._consumer.getmany(one, timeout_ms=APART, max_records=room):
                    return dict(found)
            except UnicodeDecodeError:
                return {one: await self._read_singly(one)}
        return {}

    async def _read_singly(self, one: Any) -> list[Any]:
        """Up to the record that cannot be read, which is passed over, aloud."""
        records, offset = list[Any](), self._next[one]
        self._consumer.seek(one, offset)
        try:
            while found := await self._consumer.getmany(one, timeout_ms=APART, max_records=1):
                records += found[one]
                offset = records[-1].offset + 1
        except UnicodeDecodeError as error:
            log.error("record passed over", partition=name_of(*one), offset=offset, problem=str(error))
            self._next[one] = offset + 1
            self._consumer.seek(one, offset + 1)
        return records

    async def _check(self) -> None:
        """Raises if the cluster is silent because it is away: the client itself would go on hoping."""
        with _patience("answer"):
            await self._consumer.topics()

    async def _hand_over(self) -> None:
        async with self._handing:
            gathered, self._gathered = self._gathered, {}
            if not gathered:
                return
            with anyio.CancelScope() as self._scope:
                await self._accept(gathered)

    async def _accept(self, gathered: dict[Any, list[Any]]) -> None:
        offsets = {one: records[-1].offset + 1 for one, records in gathered.items()}
        head = envelope(self._context, "KAFKA", self._options.instance_id)
        records = (record for some in gathered.values() for record in some)
        await self._context.accept_batch(
            events(records, head, self._settings.batch_bytes),
            {name_of(*one): written(self._options.cluster, offset) for one, offset in offsets.items()},
        )
        await self._commit(offsets)

    async def _commit(self, offsets: dict[Any, int]) -> None:
        """Tell the broker. If the group has moved on it refuses, and nothing is lost by that."""
        try:
            with _patience("take offsets"):
                await self._consumer.commit(offsets)
        except library().errors.CommitFailedError as error:
            log.info("offsets not committed", trigger=self._context.trigger_id, problem=str(error))


def _patience(what: str, seconds: float = PATIENCE) -> AbstractContextManager[None]:
    return patience(f"the cluster did not {what}", seconds)


def _listener(reader: _Reader) -> Any:
    """The client wants one of its own class."""

    class Listener(library().ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            reader.assigned(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            await reader.revoked()

    return Listener()
