"""Source of KAFKA and OPENSOURCEKAFKA. Reads topics from the trigger's cursors on.

Each batch and the cursors after it are stored in one transaction. Offsets are committed to the broker only afterwards,
so committed offsets are never ahead of stored records. After a crash, reading continues at the cursors.
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

from engine import EVENT_LIMIT, TriggerContext
from plugins._shared.batches import envelope, events, ordered_events
from plugins._shared.deadline import deadline
from plugins._shared.ordering import by_key, ordering_key
from plugins.kafka.causes import named_causes
from plugins.kafka.fetches import Fetches
from plugins.kafka.marks import Marks
from plugins.kafka.offsets import PartitionOffset, decode_offsets, encode_offset, name_of
from plugins.kafka.options import KafkaOptions, OpenKafkaOptions
from plugins.kafka.settings import KafkaSettings, connection, library
from plugins.kafka.starts import Start, Starts

log = structlog.get_logger("functiond.plugins.kafka")

#: Seconds that one request to the cluster may take.
DEADLINE = 15.0
#: Seconds that forming the group may take.
JOINING = 60.0
#: Seconds until a batch is dropped that is being accepted while the group revokes its partitions.
REVOKED = 3.0


class KafkaTrigger:
    def __init__(self, options: KafkaOptions | OpenKafkaOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        settings: KafkaSettings = context.plugin.settings
        with named_causes():
            async with _consumer(self._options, settings, context) as consumer:
                await _Reader(self._options, settings, context, consumer).run(task_status)


@asynccontextmanager
async def _consumer(
    options: KafkaOptions | OpenKafkaOptions, settings: KafkaSettings, context: TriggerContext
) -> AsyncIterator[Any]:
    consumer = library().AIOKafkaConsumer(
        group_id=f"{settings.group}:{context.function}" if settings.group else f"functiond-{context.trigger_id}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # where to continue if the record at our offset was removed
        session_timeout_ms=int(settings.session_timeout * 1000),
        heartbeat_interval_ms=int(settings.session_timeout * 300),
        max_poll_interval_ms=2**31 - 1,  # a full backlog may stop reading for days; heartbeats continue
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
    """Reader of a trigger's topics from one start of the source to its end.

    Reads only the partitions in ``_started``: assigned partitions whose start offsets were found.
    """

    def __init__(
        self, options: KafkaOptions | OpenKafkaOptions, settings: KafkaSettings, context: TriggerContext, consumer: Any
    ) -> None:
        self._options, self._settings, self._context, self._consumer = options, settings, context, consumer
        self._assigned: frozenset[Any] = frozenset()
        self._started: set[Any] = set()
        self._joined = asyncio.Event()  #: set at the first assignment
        self._starts, self._marks = Starts(consumer, options.cluster, settings), Marks(consumer)
        self._gathered: dict[Any, list[Any]] = {}
        self._remade: set[Any] = set()  #: assigned partitions whose records have shown that their topic was made anew
        self._begun_anew: set[Any] = set()  #: partitions that this run has read from their start for that reason
        self._fetches = Fetches(consumer, self._marks)
        self._accepting = anyio.Lock()
        self._scope = anyio.CancelScope()

    async def run(self, task_status: TaskStatus[None]) -> None:
        if self._settings.group:
            await self._join()
        else:
            # The client has no public method to load partitions before some are assigned.
            await self._consumer._client.set_topics(self._options.topic_ids)
            self._assign_all()
        self._consumer._client.cluster.add_listener(self._fetches.recheck_topics)
        await self._start_partitions()
        task_status.started()
        while True:
            await self._gather()
            await self._accept_gathered()
            if not self._settings.group:
                self._assign_all()
            await self._start_partitions()

    # --- assignment of partitions ---------------------------------------------------------------------------

    async def _join(self) -> None:
        self._consumer.subscribe(self._options.topic_ids, listener=_listener(self))
        with _max_wait("form the group", JOINING):
            while not self._joined.is_set():
                await self._consumer.getmany(timeout_ms=200)  # raises the client's errors; records are fetched again

    def _assign_all(self) -> None:
        """Assign all partitions of the topics to this consumer, also those created since the last call."""
        partitions = frozenset(self._existing())
        if partitions != self._assigned:
            self._consumer.assign(tuple(partitions))
            self.set_assigned(partitions)

    def _existing(self) -> Iterable[Any]:
        for topic in self._options.topic_ids:
            partitions = self._consumer.partitions_for_topic(topic)
            if not partitions:
                raise ConnectionError(f"there is no topic {topic} at {self._options.cluster}")
            yield from (library().TopicPartition(topic, number) for number in partitions)

    def set_assigned(self, partitions: Iterable[Any]) -> None:
        self._assigned = frozenset(partitions)
        self._started.clear()
        self._remade.clear()
        self._joined.set()

    async def revoke(self) -> None:
        """Stop reading all partitions. Another engine may read them as soon as this method returns."""
        self._assigned = frozenset()
        self._started.clear()
        self._gathered.clear()
        with anyio.move_on_after(REVOKED):
            async with self._accepting:
                return
        self._scope.cancel()  # the batch waits for room in the backlog; the next engine reads its records again
        async with self._accepting:
            return

    # --- starts of partitions -------------------------------------------------------------------------------

    async def _start_partitions(self) -> None:
        """Find the start offsets of all assigned partitions. If the assignment changes meanwhile, find them again."""
        while (assigned := self._assigned) - self._started:
            with _max_wait("report its offsets"):
                starts = await self._starts.find(assigned, self._cursors(), self._remade)
            if assigned is not self._assigned:
                continue
            await self._store_starts(starts)
            if assigned is self._assigned:
                for partition, start in starts.items():
                    self._marks.start_at(partition, start)
                self._started |= assigned
                self._remade.clear()

    async def _store_starts(self, starts: Mapping[Any, Start]) -> None:
        """Store the start offset of each partition that has no cursor, or only the cursor of a deleted topic.

        For a deleted topic, the start is first committed to the broker. Otherwise the deleted topic's committed offset
        would be ahead of the new cursor, and count as read.
        """
        remade = {partition: start.position.offset for partition, start in starts.items() if start.remade}
        if remade:
            await self._commit(remade)
        cursors = {
            name_of(*partition): encode_offset(start.position)
            for partition, start in starts.items()
            if not start.stored
        }
        if cursors:
            await self._context.accept_batch([], cursors)
        if remade:
            self._report_remade(remade)

    def _report_remade(self, offsets: Mapping[Any, int]) -> None:
        for partition, offset in offsets.items():
            log.warning("the topic was deleted and made anew", partition=name_of(*partition), read_from=offset)
        self._begun_anew |= offsets.keys()
        counts = Counter(partition.topic for partition in self._begun_anew)
        self._context.report_notice(
            "; ".join(
                f"topic {topic} was deleted and made anew (partitions read from their start: {count})"
                for topic, count in counts.items()
            )
        )

    def _cursors(self) -> dict[str, PartitionOffset]:
        return decode_offsets(self._context.cursors, self._options.cluster)

    # --- batches --------------------------------------------------------------------------------------------

    async def _gather(self) -> None:
        """Read records until the batch is full or the time for a batch is over.

        If there are none, check the cluster.
        """
        deadline, size = anyio.current_time() + self._settings.check_every, 0
        while (room := self._options.batch_size - sum(map(len, self._gathered.values()))) > 0:
            found = await self._fetches.read(self._started, deadline - anyio.current_time(), room)
            if not self._gathered:
                deadline = anyio.current_time() + self._settings.batch_wait
            for partition, records in found.items():
                if records and partition in self._started:  # others are fetched again when their start is found
                    size += sum(len(record.value or b"") for record in self._take(partition, records))
            if not found or size >= self._settings.batch_bytes or self._assigned - self._started:
                break
        if early := {partition for partition in self._started if self._marks.ends_early(partition)}:
            self._started -= early
            with _max_wait("report its topics"):  # the topic may have been deleted
                await self._consumer._client.force_metadata_update()
        if not self._gathered:
            await self._check()

    def _take(self, partition: Any, records: Sequence[Any]) -> Sequence[Any]:
        """Add the new ones of the fetched records to the batch, and return them.

        If there are none, the cursor may still receive the time of the last read record.
        """
        before = self._marks.position(partition)
        new = self._marks.take(partition, records)
        if new is None:
            self._remade.add(partition)
            self._started.discard(partition)
            return ()
        if self._marks.position(partition) != before:
            self._gathered.setdefault(partition, []).extend(new)
        return new

    async def _check(self) -> None:
        """Raise ConnectionError if the cluster does not reply. The client library would retry without an error."""
        with _max_wait("reply"):
            await self._consumer.topics()

    async def _accept_gathered(self) -> None:
        async with self._accepting:
            gathered, self._gathered = self._gathered, {}
            if not gathered:
                return
            with anyio.CancelScope() as self._scope:
                await self._accept(gathered)

    async def _accept(self, gathered: dict[Any, list[Any]]) -> None:
        positions = {partition: self._marks.position(partition) for partition in gathered}
        head = envelope(self._context, "KAFKA", self._options.instance_id)
        records = (record for some in gathered.values() for record in some)
        limit = self._settings.batch_bytes
        ordered = self._options.ordering == "record_key"
        started = anyio.current_time()
        await self._context.accept_batch(
            ordered_events(by_key(records, _key_of), head, limit) if ordered else events(records, head, limit),
            {name_of(*partition): encode_offset(position) for partition, position in positions.items()},
        )
        if anyio.current_time() - started > self._settings.check_every:
            self._fetches.recheck_topics()  # the client fetches nothing while records wait for room
        await self._commit({partition: position.offset for partition, position in positions.items()})

    async def _commit(self, offsets: dict[Any, int]) -> None:
        """Commit offsets to the broker. After a rebalance the broker may reject them; no records are lost then."""
        try:
            with _max_wait("accept offsets"):
                await self._consumer.commit(offsets)
        except library().errors.CommitFailedError as error:
            log.info("offsets not committed", trigger=self._context.trigger_id, problem=str(error))


def _key_of(record: Any) -> str:
    return ordering_key(record.key or b"", f"KAFKA:{record.topic}:{record.partition}")


def _max_wait(action: str, seconds: float = DEADLINE) -> AbstractContextManager[None]:
    return deadline(f"the cluster did not {action}", seconds)


def _listener(reader: _Reader) -> Any:
    """Return an object that the client calls at rebalances. The client accepts instances of its own class only."""

    class Listener(library().ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            reader.set_assigned(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            await reader.revoke()

    return Listener()
