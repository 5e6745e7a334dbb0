"""Source of DIS: each partition of a stream is read in order, by its own task.

    stream exists → partitions whose parents are read to the end → read, accept with checkpoint, repeat → children

A serial trigger reads a partition further only after the invocation of the partition's last batch has ended. A
checkpoint is a sequence number, since cursors of DIS expire. It is a cursor of the trigger, one per partition, so it is
stored in the transaction that accepts the requests. Records whose retention ends before they are read, or whose stream
is deleted, are reported as lost. Records that are in memory then are still passed on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import anyio
import msgspec
from anyio.abc import TaskGroup, TaskStatus
from msgspec import Struct
from msgspec.structs import replace

from engine import Event, SourceIdentity, TriggerContext
from plugins.dis.access import Layout, Page, Part, Span, Start
from plugins.dis.events import events_of
from plugins.dis.options import DisOptions
from plugins.dis.problems import EXPIRED_CURSOR, NO_STREAM, OUT_OF_RANGE, TOO_FAST, DisProblem
from plugins.dis.service import StreamAccess

_RANGE = re.compile(r" of \[(\d+) :")  #: first readable number, in a message of OUT_OF_RANGE
FETCHED = 1 << 20  #: bytes of records in one read, unless the options set it


class ShardCheckpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Position of a trigger in one partition. Valid only for the stream whose id is ``stream``."""

    stream: str  #: stream id; another stream of the same name is read from its beginning
    name: str = ""  #: stream name; empty in cursors of earlier versions
    after: str = ""  #: sequence number of the last accepted record
    since: int = 0  #: milliseconds; older records are skipped
    drained: bool = False  #: the partition is closed, and read to its end
    request: str = ""  #: id of the last batch's request, if a serial trigger waits for its end

    def position(self) -> int | None:
        """Return the sequence number of the next record to read; None if it is unknown, since none was read."""
        return int(self.after) + 1 if self.after else None

    def unread(self, span: Span) -> int:
        """Return the number of records that a partition had after this checkpoint when its stream was deleted."""
        (first, end, last_at), position = span, self.position()
        if self.drained or last_at < self.since:
            return 0
        return end - (first if position is None else position)

    def start(self) -> Start:
        if self.position() == 0:
            return Start(type="AT_SEQUENCE_NUMBER", sequence_number="0")
        if self.after:
            return Start(type="AFTER_SEQUENCE_NUMBER", sequence_number=self.after)
        return Start(type="AT_TIMESTAMP", timestamp=self.since) if self.since else Start(type="TRIM_HORIZON")


class ShardCheckpoints:
    """Checkpoints of one trigger, keyed by partition id.

    Methods raise the errors with which ``TriggerContext.accept_batch`` refuses events.
    """

    def __init__(self, context: TriggerContext, name: str) -> None:
        self._context, self._begin = context, ShardCheckpoint(stream="", name=name)
        self._stored = {
            part: msgspec.json.decode(value, type=ShardCheckpoint) for part, value in context.cursors.items()
        }

    def of(self, partition: str) -> ShardCheckpoint:
        """Return the checkpoint of a partition, which is at number 0 if the partition was made after ``begin``."""
        stored = self._stored.get(partition)
        if stored is not None and stored.stream == self._begin.stream:
            return stored
        return replace(self._begin, after="-1")

    async def leave(self, access: StreamAccess, present: str) -> None:
        """Report records that were unread in an earlier stream of the name, and forget its checkpoints.

        ``present`` is the id of the present stream, empty if there is none.
        """
        name = self._begin.name
        old = {part: checkpoint for part, checkpoint in self._stored.items() if checkpoint.stream not in ("", present)}
        for stream_id in {checkpoint.stream for checkpoint in old.values() if checkpoint.name in ("", name)}:
            spans = access.ended(stream_id)
            if spans is None:
                self._context.report_lost(f"stream {name!r} was deleted: its records that were not read are lost", 0)
            elif lost := sum(old.get(part, self._begin).unread(span) for part, span in spans.items()):
                self._context.report_lost(f"stream {name!r} was deleted before {lost} of its records were read", lost)
            await self._move(
                [], {part: self._begin for part, checkpoint in old.items() if checkpoint.stream == stream_id}
            )

    async def begin(self, layout: Layout, *, late: bool) -> None:
        """Set checkpoints in all partitions of a stream that the trigger has never read.

        With ``late``, records are skipped that are older than the time when the trigger was created, or was changed to
        the name of this stream. A stream that was made anew under its name is read from its beginning.
        """
        known = any(checkpoint.name in ("", self._begin.name) for checkpoint in self._stored.values())
        self._begin = begin = replace(self._begin, stream=layout.stream_id)
        if not any(checkpoint.stream == layout.stream_id for checkpoint in self._stored.values()):
            since = int(self._context.since * 1000) if late and not known else 0
            new = {
                part.id: replace(begin, since=since, drained=part.expired or bool(since and not part.open))
                for part in layout.parts
            }
            await self._move([], {**dict.fromkeys(self._stored, begin), **new})

    async def move(self, partition: str, events: Sequence[Event], after: str, *, serial: bool = False) -> None:
        """Accept events of a partition, and move its checkpoint to ``after``, the sequence number of their last record.

        With ``serial``, the checkpoint also contains the request id of the last event, so that the source's next run
        can wait for the end of its invocation.
        """
        checkpoint = replace(self._begin, after=after)
        ids = await self._move(events, {partition: checkpoint})
        if serial and ids[-1]:
            await self._move([], {partition: replace(checkpoint, request=ids[-1])})

    async def drain(self, partition: str) -> None:
        await self._move([], {partition: replace(self._begin, drained=True)})

    async def _move(self, events: Sequence[Event], checkpoints: dict[str, ShardCheckpoint]) -> Sequence[str]:
        cursors = {name: msgspec.json.encode(checkpoint) for name, checkpoint in checkpoints.items()}
        ids = await self._context.accept_batch(events, cursors)
        self._stored.update(checkpoints)
        return ids


class DisTrigger:
    def __init__(self, options: DisOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        access = await context.plugin.service.access()
        task_status.started()
        name = self._options.stream_name
        checkpoints = ShardCheckpoints(context, name)
        while True:
            made = access.news(context.project, name, "", self._options.interval)
            layout = await _layout(access, context.project, name)
            await checkpoints.leave(access, layout.stream_id)
            if layout.stream_id:
                break
            context.report_problem(f"stream {name!r} does not exist: create it")
            await made()
        context.report_problem("")
        await checkpoints.begin(layout, late=self._options.sharditerator_type == "LATEST")
        await _Reading(context, access, self._options, checkpoints, layout).run()


async def _layout(access: StreamAccess, project: str, stream: str) -> Layout:
    """Return the layout of a stream, with an empty id if there is no such stream."""
    try:
        return await access.layout(project, stream)
    except DisProblem as problem:
        if problem.code != NO_STREAM:
            raise
        return Layout(stream_id="", parts=())


class _Reading:
    """Single run of a trigger's source: the partitions that it reads, and the trigger's checkpoints."""

    def __init__(
        self,
        context: TriggerContext,
        access: StreamAccess,
        options: DisOptions,
        checkpoints: ShardCheckpoints,
        layout: Layout,
    ) -> None:
        self._context, self._access, self._options, self._checkpoints = context, access, options, checkpoints
        self._stream = context.project, options.stream_name
        self._layout, self._read_at = layout, anyio.current_time()
        self._identity = SourceIdentity(layout.stream_id, self._read_layout)
        self._begun: set[str] = set()

    async def run(self) -> None:
        async with anyio.create_task_group() as readers:
            self._begin(readers)
            await anyio.sleep_forever()

    def _begin(self, readers: TaskGroup) -> None:
        """Start a task for each partition whose parents are read to the end.

        Partitions that had a task in this run, or that are read to the end themselves, are left out.
        """
        unread = [part for part in self._layout.parts if not self._checkpoints.of(part.id).drained]
        awaited = {part.id for part in unread if not part.expired}
        for part in unread:
            if part.id not in self._begun and awaited.isdisjoint(part.parents):
                self._begun.add(part.id)
                readers.start_soon(self._follow, part.id, readers)

    async def _follow(self, partition: str, readers: TaskGroup) -> None:
        if self._part(partition).expired:  # of a remote stream
            self._context.report_lost(f"{partition} has expired: its records that were not read are lost", 0)
            await self._checkpoints.drain(partition)
            return
        await self._wait_for_last(partition)
        cursor = ""
        while True:
            news = self._access.news(*self._stream, partition, self._options.interval)
            closed = not self._part(partition).open
            try:
                cursor = cursor or await self._cursor(partition)
                page = await self._access.read(self._context.project, cursor, self._options.max_fetch_bytes or FETCHED)
                first = int(page.records[0].sequence_number) if page.records else 0
                if first > (self._checkpoints.of(partition).position() or 0):
                    await self._cursor(partition)  # reports a gap, unless numbers of a remote stream have gaps
            except DisProblem as problem:
                if problem.code == EXPIRED_CURSOR:
                    cursor = ""
                elif problem.code == TOO_FAST:
                    await anyio.sleep(self._options.interval)
                else:
                    await self._identity.check()
                    raise
                continue
            cursor = page.next_partition_cursor
            if page.records:
                began = anyio.current_time()
                await self._take(partition, page)
                if anyio.current_time() - began >= self._access.fresh_for:
                    cursor = ""  # retention may have passed it meanwhile
            elif closed:  # closed before the read, so no more records follow
                await self._checkpoints.drain(partition)
                await self._identity.check()
                self._begin(readers)
                return
            else:
                if anyio.current_time() - self._read_at >= self._access.fresh_for:
                    await self._identity.check()  # and reads the layout
                if self._part(partition).open:
                    await news()

    async def _take(self, partition: str, page: Page) -> None:
        batches = events_of(self._options, partition, page)
        if self._options.serial:
            for event, last in batches:
                await self._checkpoints.move(partition, [event], last, serial=True)
                await self._wait_for_last(partition)
        else:
            await self._checkpoints.move(partition, [event for event, _ in batches], batches[-1][1])

    async def _wait_for_last(self, partition: str) -> None:
        """Wait until the invocation of the partition's last batch has ended, if the trigger is serial.

        An earlier run of the source may have accepted that batch.
        """
        if self._options.serial and (request_id := self._checkpoints.of(partition).request):
            await self._context.ended(request_id)

    async def _cursor(self, partition: str) -> str:
        """Return a cursor at the checkpoint. If its records were deleted, report this, and move it past them."""
        checkpoint = self._checkpoints.of(partition)
        try:
            return await self._cursor_at(partition, checkpoint.start())
        except DisProblem as problem:
            if problem.code != OUT_OF_RANGE:
                raise
            match = _RANGE.search(problem.message)
        first = int(match[1]) if match else 0
        lost = max(0, first - (checkpoint.position() or 0))
        if lost or not match:
            number = f"{lost} records" if lost else "records"
            self._context.report_lost(f"retention ended for {number} of {partition} before they were read", lost)
        if lost:
            await self._checkpoints.move(partition, [], str(first - 1))
        return await self._cursor_at(partition, Start(type="TRIM_HORIZON"))

    async def _cursor_at(self, partition: str, start: Start) -> str:
        try:
            return await self._access.cursor(*self._stream, partition, start)
        finally:
            await self._identity.check()  # a stream made anew meanwhile has given the cursor, or has no such partition

    # --- layout of the stream -------------------------------------------------------------------------------

    def _part(self, partition: str) -> Part:
        matching = (part for part in self._layout.parts if part.id == partition)
        return next(matching, Part(id=partition, open=False, expired=True))  # DIS does not list expired ones

    async def _read_layout(self) -> str:
        """Read the layout again, and return the id of the stream; empty if there is none."""
        self._layout = await _layout(self._access, *self._stream)
        self._read_at = anyio.current_time()
        return self._layout.stream_id
