"""Reader of a trigger's topics.

Each batch and the cursors after it are stored in one transaction. Offsets are committed to the broker only afterwards,
so committed offsets are never ahead of stored records. After a crash, reading continues at the cursors.

A cursor belongs to the topic of one id. Records that were fetched are accepted only if the leaders of their partitions
still report that id. If not, the topic was made anew: a new consumer reads it from its start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import anyio
import msgspec
import structlog
from anyio.abc import TaskStatus

from engine import EVENT_LIMIT, Event, TriggerContext
from plugins._shared.batches import envelope, events, hops_of, ordering_key
from plugins._shared.connections import deadline
from plugins.kafka.client import library
from plugins.kafka.fetches import Fetches, StartAgain
from plugins.kafka.offsets import PartitionOffset, Start, Starts, decode_offsets, name_of
from plugins.kafka.options import KafkaOptions, KafkaSettings, OpenKafkaOptions
from plugins.kafka.topics import Topic, Topics

log = structlog.get_logger("functiond.plugins.kafka")

#: Seconds that one request to the cluster may take.
DEADLINE = 15.0
#: Seconds that a commit may take.
COMMITTED = 3.0
#: Seconds that forming the group may take.
JOINING = 60.0
#: Seconds until a batch is dropped that is being accepted while the group revokes its partitions.
REVOKED = 3.0
#: Seconds between looks at the topics. New partitions are read after at most this time.
LOOK = 5.0
#: Seconds between reports of how far a trigger has read: in its state, and, unless it shares a group, by commits.
REPORT = 1.0
#: Batches that are accepted together, if the client has their records already.
BATCHES = 10


class Reader:
    """Reader of a trigger's topics with one consumer.

    Reads only the partitions in ``_started``: assigned partitions whose start offsets were found.
    """

    def __init__(
        self,
        options: KafkaOptions | OpenKafkaOptions,
        settings: KafkaSettings,
        context: TriggerContext,
        consumer: Any,
        rejected: Collection[str],
        anew: set[str],
    ) -> None:
        self._options, self._settings, self._context, self._consumer = options, settings, context, consumer
        self._rejected, self._anew = rejected, anew  #: partitions without their last record; topics read from the start
        self.accepted = False  #: whether records were accepted
        self._metadata = Topics(consumer._client, options.topic_ids, options.cluster)
        self._topics: dict[str, Topic] = {}
        self._look_due = 0.0  #: time of the next look at the topics
        self._assigned: frozenset[Any] = frozenset()
        self._started: set[Any] = set()
        self._joined = asyncio.Event()  #: set at the first assignment
        start = options.starting_position or settings.start
        self._starts = Starts(consumer, options.cluster, start, shared=bool(settings.group))
        self._gathered: dict[Any, list[Any]] = {}
        self._forbidden: set[str] = set()  #: topics whose records the login may not read
        self._ends: dict[Any, int] = {}  #: ends of partitions, as known when their topics were last looked at
        self._uncommitted: dict[Any, PartitionOffset] = {}
        self._commit_at = self._lag_at = 0.0
        self._fetches = Fetches(consumer)
        self._accepting, self._scope = anyio.Lock(), anyio.CancelScope()

    async def run(self, task_status: TaskStatus[None]) -> None:
        await self._look_at_topics()
        if self._settings.group:
            with _max_wait("form the group", JOINING):
                while not self._joined.is_set():
                    await self._fetches.read((), 0.2, 1)  # raises the client's errors; records are fetched again
        self._consumer._client.cluster.add_listener(self._follow_leaders)
        await self._start_partitions()
        task_status.started()
        while True:
            await self._gather()
            await self._accept_gathered()
            if anyio.current_time() >= self._look_due:
                await self._look_at_topics()
            await self._start_partitions()

    # --- topics and assignment of partitions ----------------------------------------------------------------

    async def _look_at_topics(self) -> None:
        """Read the ids, partitions and problems of the topics, and read those that can be read.

        Raises ConnectionError if none can, and StartAgain if a topic was made anew.
        """
        with _max_wait("reply"):
            topics = await self._metadata.look()
        self._look_due = anyio.current_time() + min(LOOK, self._settings.check_every)
        known = {name: topic.id for name, topic in self._topics.items()}
        gone = {name for name, topic in topics.items() if known.get(name) and topic.id != known[name]}
        self._report_deleted(gone)
        self._topics |= {name: topic for name, topic in topics.items() if not topic.problem}
        if any(topics[name].id for name in gone):
            raise StartAgain
        self._assign(topics)
        self._report_problems(topics)
        self._note_ends(self._started & self._consumer.assignment())
        if self._ends:
            self._report_lag()

    def _report_problems(self, topics: Mapping[str, Topic]) -> None:
        problems = [topic.problem for topic in topics.values() if topic.problem]
        if len(problems) == len(topics):
            raise ConnectionError("; ".join(problems))
        problems += [
            f"no broker leads the partition {name_of(name, number)}"
            for name, topic in topics.items()
            for number, leader in topic.leaders.items()
            if leader < 0
        ]
        problems += [f"the login may not read topic {name} (operation Read)" for name in sorted(self._forbidden)]
        self._context.report_problem("; ".join(problems))
        self._consumer.resume(
            *(partition for partition in self._consumer.paused() if partition.topic in self._forbidden)
        )
        self._forbidden.clear()

    def _assign(self, topics: Mapping[str, Topic]) -> None:
        """Assign all partitions that have a leader to this consumer, or let the group assign some of them."""
        if self._settings.group:
            names = {name for name, topic in topics.items() if not topic.problem}
            if names != self._consumer.subscription():
                self._consumer.subscribe(sorted(names), listener=_listener(self))
            return
        partitions = frozenset(
            library().TopicPartition(name, number)
            for name, topic in topics.items()
            for number, leader in topic.leaders.items()
            if leader >= 0
        )
        if partitions != self._assigned:
            self._consumer.assign(tuple(partitions))
            self.set_assigned(partitions)

    def set_assigned(self, partitions: Iterable[Any]) -> None:
        self._assigned = frozenset(partitions)
        self._started.clear()
        self._ends.clear()
        self._joined.set()

    async def revoke(self) -> None:
        """Stop reading all partitions. Another engine may read them as soon as this method returns."""
        self._assigned = frozenset()
        self._started.clear()
        self._gathered.clear()
        with anyio.move_on_after(REVOKED):
            async with self._accepting:
                self._uncommitted.clear()
                return
        self._scope.cancel()  # the batch waits for room in the backlog; the next engine reads its records again
        async with self._accepting:
            self._uncommitted.clear()

    def _follow_leaders(self, cluster: Any) -> None:
        """Fetch only from partitions that have a leader: the client would ask for the others without a pause."""
        self._fetches.recheck_topics()
        for partition in self._started & self._consumer.assignment():
            if cluster.leader_for_partition(partition) in (None, -1):
                self._consumer.pause(partition)
                self._look_due = 0.0
            elif partition.topic not in self._forbidden:
                self._consumer.resume(partition)

    def _note_ends(self, partitions: Iterable[Any]) -> None:
        """Note the ends of partitions that the last fetches told. Their topics must be known to be the same since."""
        for partition in partitions:
            if (end := self._end(partition)) is not None:
                self._ends[partition] = end

    def _end(self, partition: Any) -> int | None:
        """Return the end of a partition that the last fetch has told, without open transactions."""
        stable: int | None = self._consumer.last_stable_offset(partition)
        return self._consumer.highwater(partition) if stable in (None, -1) else stable

    def _report_lag(self) -> None:
        self._lag_at = anyio.current_time() + min(REPORT, self._settings.check_every)
        self._context.report_lag({name_of(*partition): self._left(partition) for partition in self._ends})

    def _left(self, partition: Any) -> int:
        """Return the number of stored records of a partition that were not accepted yet."""
        gathered = self._gathered.get(partition)
        position = gathered[0].offset if gathered else self._fetches.position(partition).offset
        return max(0, self._ends[partition] - position)

    def _report_deleted(self, names: Collection[str]) -> None:
        """Report the records of deleted topics that were not read."""
        for name in names:
            unread = sum(self._left(partition) for partition in self._ends if partition.topic == name)
            if unread:
                self._context.report_lost(f"topic {name} was deleted with {unread} records that were not read", unread)
        self._started = {partition for partition in self._started if partition.topic not in names}
        self._uncommitted = {
            partition: offset for partition, offset in self._uncommitted.items() if partition.topic not in names
        }
        self._ends = {partition: end for partition, end in self._ends.items() if partition.topic not in names}

    # --- starts of partitions -------------------------------------------------------------------------------

    async def _start_partitions(self) -> None:
        """Find the start offsets of all assigned partitions. If the assignment changes meanwhile, find them again."""
        while (assigned := self._assigned) - self._started:
            if unknown := {partition.topic for partition in assigned} - self._topics.keys():
                raise ConnectionError(f"there is no topic {', '.join(unknown)} at {self._options.cluster}")
            cursors = decode_offsets(self._context.cursors, self._options.cluster)
            with _max_wait("report its offsets"):
                starts = await self._starts.find(assigned, cursors, self._topics, self._rejected)
            if assigned is not self._assigned:
                continue
            await self._store_starts(starts)
            if assigned is self._assigned:
                for partition, start in starts.items():
                    self._fetches.start_at(partition, start)
                self._started |= assigned
                self._rejected = ()

    async def _store_starts(self, starts: Mapping[Any, Start]) -> None:
        """Store the start offset of each partition that has no cursor, or only the cursor of a deleted topic.

        The starts are first committed to the broker. The next engine of the group then knows them, and a deleted
        topic's committed offset does not count as read.
        """
        new = {partition: start for partition, start in starts.items() if not start.stored}
        if not new:
            return
        await self._commit({partition: start.position for partition, start in new.items()})
        await self._context.accept_batch(
            [], {name_of(*partition): msgspec.json.encode(start.position) for partition, start in new.items()}
        )
        for partition, removed in ((partition, start.removed) for partition, start in new.items() if start.removed):
            text = f"{removed} records of {name_of(*partition)} were removed before they were read"
            self._context.report_lost(text, removed)
        if anew := {partition.topic for partition, start in new.items() if start.reported.anew}:
            log.warning("topics were made anew", trigger=self._context.trigger_id, topics=sorted(anew))
            self._anew |= anew
            notices = (f"topic {topic} was made anew, and is read from its start" for topic in sorted(self._anew))
            self._context.report_notice("; ".join(notices))

    # --- batches --------------------------------------------------------------------------------------------

    async def _gather(self) -> None:
        """Read until a batch is full or its time is over; up to ``BATCHES`` batches that the client has already."""
        size, due, most = 0, 0.0, self._options.batch_size * BATCHES
        next_work = min(self._look_due, self._commit_at) if self._uncommitted else self._look_due
        wait = max(0.0, next_work - anyio.current_time())
        while (count := sum(map(len, self._gathered.values()))) < most:
            fetched = await self._read(0 if count >= self._options.batch_size else wait, most - count)
            for partition, records in fetched.items():
                if records and partition in self._started:  # others are fetched again when their start is found
                    size += sum(len(record.value or b"") for record in self._take(partition, records))
            if not fetched or size >= self._settings.batch_bytes or self._assigned - self._started:
                break
            due = due or anyio.current_time() + self._settings.batch_wait
            few = sum(map(len, self._gathered.values())) < self._options.batch_size
            if few and not any(self._is_behind(partition) for partition in fetched):
                await anyio.sleep_until(due)  # records that come one by one are read together
            wait = max(0.0, due - anyio.current_time())
        if not self._gathered:
            await self._pass_markers()

    def _is_behind(self, partition: Any) -> bool:
        """Return whether the last fetch of a partition has told of further records."""
        return partition in self._started and (self._end(partition) or 0) > self._fetches.position(partition).offset

    async def _read(self, seconds: float, room: int) -> dict[Any, list[Any]]:
        try:
            return await self._fetches.read(self._started, seconds, room)
        except library().errors.TopicAuthorizationFailedError as error:
            self._forbidden.add(error.args[0])
            self._report_problems(self._topics)
            self._consumer.pause(
                *(partition for partition in self._consumer.assignment() if partition.topic in self._forbidden)
            )
            return {}

    def _take(self, partition: Any, records: Sequence[Any]) -> Sequence[Any]:
        """Add the new ones of the fetched records to the batch, and return them.

        If there are none, the cursor may still receive the time of the last read record.
        """
        before = self._fetches.position(partition)
        new = self._fetches.take(partition, records)
        if new is None:
            raise StartAgain([name_of(*partition)])
        if self._fetches.position(partition) != before:
            self._gathered.setdefault(partition, []).extend(new)
        return new

    async def _pass_markers(self) -> None:
        """Move cursors past the markers of transactions, and past aborted records, that follow the last record."""
        for partition in self._started & self._consumer.assignment():
            if self._fetches.pass_markers(partition, await self._consumer.position(partition)):
                self._gathered[partition] = []

    async def _accept_gathered(self) -> None:
        async with self._accepting:
            if self._gathered:
                await self._confirm_topics()
                gathered, self._gathered = self._gathered, {}
                with anyio.CancelScope() as self._scope:
                    await self._accept(gathered)
            if self._uncommitted and (self._settings.group or anyio.current_time() >= self._commit_at):
                offsets, self._uncommitted = self._uncommitted, {}
                self._commit_at = anyio.current_time() + REPORT
                await self._commit(offsets)

    async def _confirm_topics(self) -> None:
        """Raise StartAgain if gathered records may be those of a topic that was made anew."""
        with _max_wait("reply"):
            remade = await self._metadata.remade(
                self._gathered, {name: topic.id for name, topic in self._topics.items()}
            )
        if remade:
            self._report_deleted(remade)
            raise StartAgain
        self._note_ends(self._gathered)
        if len(self._ends) <= 100 or anyio.current_time() >= self._lag_at:  # many are not told for each batch
            self._report_lag()

    async def _accept(self, gathered: dict[Any, list[Any]]) -> None:
        positions = {partition: self._fetches.position(partition) for partition in gathered}
        plugin = self._context.plugin
        head = envelope(plugin.clock.now(), plugin.region, "KAFKA", self._options.instance_id)
        records = [record for some in gathered.values() for record in some]
        limit, size, message_format = self._settings.batch_bytes, self._options.batch_size, self._options.message_format
        started, accepted = anyio.current_time(), list[Event]()
        for batch in (records[first : first + size] for first in range(0, len(records), size)):
            key_of, hops = _key_of if self._options.ordering else None, max(map(hops_of, batch))
            accepted += events(batch, head, limit, message_format, key_of, hops)
        cursors = {name_of(*partition): msgspec.json.encode(position) for partition, position in positions.items()}
        ids = await self._context.accept_batch(accepted, cursors)
        self.accepted = True
        self._uncommitted |= positions
        if not all(ids):
            self._log_refused(records, head)
        if anyio.current_time() - started > self._settings.check_every:
            self._fetches.recheck_topics()  # the client fetches nothing while records wait for room

    def _log_refused(self, records: Sequence[Any], head: Mapping[str, Any]) -> None:
        for record in records:
            size = len(events([record], head, EVENT_LIMIT, self._options.message_format)[0].payload)
            if size > EVENT_LIMIT:
                name = name_of(record.topic, record.partition)
                log.warning("record refused", trigger=self._context.trigger_id, partition=name, offset=record.offset)
                text = (
                    f"record {record.offset} of {name} was refused: its event has {size} bytes of at most {EVENT_LIMIT}"
                )
                self._context.report_problem(text)

    async def _commit(self, positions: Mapping[Any, PartitionOffset]) -> None:
        """Commit offsets with their topics' ids to the broker.

        After a rebalance the broker may reject them; no records are lost then.
        """
        offsets = {partition: (position.offset, position.topic) for partition, position in positions.items()}
        try:
            with _max_wait("accept offsets", COMMITTED):
                await self._consumer.commit(offsets)
        except library().errors.CommitFailedError as error:
            log.info("offsets not committed", trigger=self._context.trigger_id, problem=str(error))


def _key_of(record: Any) -> str:
    return ordering_key(record.key or b"", f"KAFKA:{record.topic}:{record.partition}")


def _max_wait(action: str, seconds: float = DEADLINE) -> AbstractContextManager[None]:
    return deadline(f"the cluster did not {action}", seconds)


def _listener(reader: Reader) -> Any:
    """Return an object that the client calls at rebalances. The client accepts instances of its own class only."""

    class Listener(library().ConsumerRebalanceListener):  # type: ignore[misc]
        def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            reader.set_assigned(assigned)

        async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            await reader.revoke()

    return Listener()
