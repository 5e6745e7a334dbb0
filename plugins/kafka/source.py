"""The source of KAFKA and OPENSOURCEKAFKA: reads topics from where its cursors stand.

Each batch and the cursors behind it are one transaction; the broker hears of the offsets only afterwards, so what it
knows is never ahead of what is safe. After a crash the cursors decide, not the broker.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import anyio
import structlog
from anyio.abc import TaskStatus

from engine import TriggerContext
from plugins._shared.batches import envelope, events
from plugins._shared.deadline import deadline
from plugins._shared.fields import EVENT_LIMIT
from plugins.kafka.fetches import Fetches
from plugins.kafka.marks import Marks
from plugins.kafka.offsets import PartitionOffset, name_of, read, written
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions
from plugins.kafka.settings import KafkaSettings, connection, library
from plugins.kafka.starts import Start, Starts

log = structlog.get_logger("functiond.plugins.kafka")

#: Seconds that one question to the cluster may take.
DEADLINE = 15.0
#: Seconds that a group may take to form.
JOINING = 60.0
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
        self._starts, self._marks = Starts(consumer, options.cluster, settings), Marks(consumer)
        self._gathered: dict[Any, list[Any]] = {}
        self._remade: set[Any] = set()  #: those of ours whose records have shown that their topic was made anew
        self._begun_anew: set[Any] = set()  #: partitions that this run has begun again for that
        self._fetches = Fetches(consumer, self._marks)
        self._handing = anyio.Lock()
        self._scope = anyio.CancelScope()

    async def run(self, task_status: TaskStatus[None]) -> None:
        if self._settings.group:
            await self._join()
        else:
            # The client offers no other way to hear of partitions before some are assigned.
            await self._consumer._client.set_topics(self._options.topic_ids)
            self._take_all()
        self._consumer._client.cluster.add_listener(self._fetches.doubt)
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
        with _max_wait("form the group", JOINING):
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
        self._remade.clear()
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
            with _max_wait("tell its offsets"):
                starts = await self._starts.find(ours, self._own(), self._remade)
            if ours is not self._ours:
                continue
            await self._keep(starts)
            if ours is self._ours:
                for one, start in starts.items():
                    self._marks.stand(one, start)
                self._placed |= ours
                self._remade.clear()

    async def _keep(self, starts: Mapping[Any, Start]) -> None:
        """Store where partitions begin that have no cursor, or one of a topic that was deleted.

        In the second case, commit first. Once the cursor is at the start, a committed offset of the deleted topic would
        count as read.
        """
        remade = {one: start.position.offset for one, start in starts.items() if start.remade}
        if remade:
            await self._commit(remade)
        cursors = {name_of(*one): written(start.position) for one, start in starts.items() if not start.stored}
        if cursors:
            await self._context.accept_batch([], cursors)
        if remade:
            self._report_remade(remade)

    def _report_remade(self, offsets: Mapping[Any, int]) -> None:
        for one, offset in offsets.items():
            log.warning("the topic was deleted and made anew", partition=name_of(*one), read_from=offset)
        self._begun_anew |= offsets.keys()
        counts = Counter(one.topic for one in self._begun_anew)
        told = (
            f"topic {topic} was deleted and made anew (partitions begun again: {counts[topic]})" for topic in counts
        )
        self._context.remark("; ".join(told))

    def _own(self) -> dict[str, PartitionOffset]:
        return read(self._context.cursors, self._options.cluster)

    # --- batches --------------------------------------------------------------------------------------------

    async def _gather(self) -> None:
        """Until the batch is full, or its time is over; without any records, until the cluster has answered."""
        deadline, size = anyio.current_time() + self._settings.check_every, 0
        while (room := self._options.batch_size - sum(map(len, self._gathered.values()))) > 0:
            found = await self._fetches.read(self._placed, deadline - anyio.current_time(), room)
            if not self._gathered:
                deadline = anyio.current_time() + self._settings.batch_wait
            for one, records in found.items():
                if records and one in self._placed:  # what came before its place was found comes again
                    size += sum(len(record.value or b"") for record in self._take(one, records))
            if not found or size >= self._settings.batch_bytes or self._ours - self._placed:
                break
        if early := {one for one in self._placed if self._marks.ends_early(one)}:
            self._placed -= early
            with _max_wait("tell its topics"):  # the topic may be gone
                await self._consumer._client.force_metadata_update()
        if not self._gathered:
            await self._check()

    def _take(self, one: Any, records: Sequence[Any]) -> Sequence[Any]:
        """Gather the new records of a partition. Without any, its cursor may still gain the time of the last one."""
        before = self._marks.position(one)
        new = self._marks.take(one, records)
        if new is None:
            self._remade.add(one)
            self._placed.discard(one)
            return ()
        if self._marks.position(one) != before:
            self._gathered.setdefault(one, []).extend(new)
        return new

    async def _check(self) -> None:
        """Raises if the cluster is silent because it is away: the client itself would go on hoping."""
        with _max_wait("answer"):
            await self._consumer.topics()

    async def _hand_over(self) -> None:
        async with self._handing:
            gathered, self._gathered = self._gathered, {}
            if not gathered:
                return
            with anyio.CancelScope() as self._scope:
                await self._accept(gathered)

    async def _accept(self, gathered: dict[Any, list[Any]]) -> None:
        positions = {one: self._marks.position(one) for one in gathered}
        head = envelope(self._context, "KAFKA", self._options.instance_id)
        records = (record for some in gathered.values() for record in some)
        began = anyio.current_time()
        await self._context.accept_batch(
            events(records, head, self._settings.batch_bytes),
            {name_of(*one): written(position) for one, position in positions.items()},
        )
        if anyio.current_time() - began > self._settings.check_every:
            self._fetches.doubt()  # the client fetches nothing while records wait for room
        await self._commit({one: position.offset for one, position in positions.items()})

    async def _commit(self, offsets: dict[Any, int]) -> None:
        """Tell the broker. If the group has moved on it refuses, and nothing is lost by that."""
        try:
            with _max_wait("take offsets"):
                await self._consumer.commit(offsets)
        except library().errors.CommitFailedError as error:
            log.info("offsets not committed", trigger=self._context.trigger_id, problem=str(error))


def _max_wait(what: str, seconds: float = DEADLINE) -> AbstractContextManager[None]:
    return deadline(f"the cluster did not {what}", seconds)


def _listener(reader: _Reader) -> Any:
    """The client wants one of its own class."""

    class Listener(library().ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            reader.assigned(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            await reader.revoked()

    return Listener()
