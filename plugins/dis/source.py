"""Source of DIS: each partition of a stream is read in order, by its own task.

    stream exists → partitions whose parents are read to the end → read, accept with checkpoint, repeat → children

A serial trigger reads a partition further only after the invocation of the partition's last batch has ended. A
checkpoint is a sequence number, since cursors of DIS expire. Records that exceed the stream's retention before they are
read are lost, and a warning is logged.
"""

from __future__ import annotations

import anyio
import structlog
from anyio.abc import TaskGroup, TaskStatus

from engine import TriggerContext
from plugins.dis.access import Layout, Page, Part, Start, StreamAccess
from plugins.dis.checkpoints import ShardCheckpoints
from plugins.dis.events import events_of
from plugins.dis.options import DisOptions
from plugins.dis.problems import EXPIRED_CURSOR, NO_STREAM, OUT_OF_RANGE, TOO_FAST, DisProblem

log = structlog.get_logger("functiond.dis")

FETCHED = 1 << 20  #: bytes of records in one read, unless the options set it


class DisTrigger:
    def __init__(self, options: DisOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        access = await context.plugin.service.access()
        task_status.started()
        layout = await self._await_stream(context, access)
        checkpoints = ShardCheckpoints(context, self._options.stream_name, layout.stream_id)
        if self._options.sharditerator_type == "LATEST":
            await checkpoints.begin_late(layout)
        await _Reading(context, access, self._options, checkpoints, layout).run()

    async def _await_stream(self, context: TriggerContext, access: StreamAccess) -> Layout:
        name = self._options.stream_name
        while True:
            made = access.news(context.project, name, "", self._options.interval)
            try:
                layout = await access.layout(context.project, name)
            except DisProblem as problem:
                if problem.code != NO_STREAM:
                    raise
                context.report_problem(f"stream {name!r} does not exist yet: create it")
                await made()
            else:
                context.report_problem("")
                return layout


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
        self._layout, self._read_at = layout, anyio.current_time()
        self._begun: set[str] = set()

    async def run(self) -> None:
        async with anyio.create_task_group() as readers:
            self._begin(readers)
            await anyio.sleep_forever()

    def _begin(self, readers: TaskGroup) -> None:
        """Start a task for each partition whose parents are read to the end.

        Partitions that had a task in this run, or that are read to the end themselves, are left out.
        """
        parts = {part.id: part for part in self._layout.parts}
        for part in self._layout.parts:
            waits = any(parent in parts and not self._is_finished(parts[parent]) for parent in part.parents)
            if part.id not in self._begun and not waits and not self._is_finished(part):
                self._begun.add(part.id)
                readers.start_soon(self._follow, part.id, readers)

    def _is_finished(self, part: Part) -> bool:
        return part.expired or self._checkpoints.of(part.id).drained

    async def _follow(self, partition: str, readers: TaskGroup) -> None:
        await self._wait_for_last(partition)
        cursor = await self._cursor(partition)
        while True:
            news = self._access.news(
                self._context.project, self._options.stream_name, partition, self._options.interval
            )
            closed = not self._part(partition).open
            try:
                page = await self._access.read(self._context.project, cursor, self._options.max_fetch_bytes or FETCHED)
            except DisProblem as problem:
                if problem.code == EXPIRED_CURSOR:
                    cursor = await self._cursor(partition)
                elif problem.code == TOO_FAST:
                    await anyio.sleep(self._options.interval)
                else:
                    raise
                continue
            cursor = page.next_partition_cursor
            if page.records:
                await self._take(partition, page)
            elif closed:  # closed before the read, so no more records follow
                await self._checkpoints.drain(partition)
                await self._read_layout()
                self._begin(readers)
                return
            elif not await self._has_closed(partition):
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
        start = self._checkpoints.of(partition).start()
        try:
            return await self._access.cursor(self._context.project, self._options.stream_name, partition, start)
        except DisProblem as problem:
            if problem.code != OUT_OF_RANGE:
                raise
        log.warning(
            "records are lost: their retention ended before they were read",
            trigger=self._context.trigger_id,
            partition=partition,
        )
        start = Start(type="TRIM_HORIZON")
        return await self._access.cursor(self._context.project, self._options.stream_name, partition, start)

    # --- layout of the stream -------------------------------------------------------------------------------

    def _part(self, partition: str) -> Part:
        found = (part for part in self._layout.parts if part.id == partition)
        return next(found, Part(id=partition, open=False, expired=True))  # DIS does not list expired ones

    async def _has_closed(self, partition: str) -> bool:
        """Return whether a partition is closed.

        Unless they were read recently, the stream's partitions are read again.
        """
        if self._part(partition).open and anyio.current_time() - self._read_at >= self._access.fresh_for:
            await self._read_layout()
        return not self._part(partition).open

    async def _read_layout(self) -> None:
        self._layout = await self._access.layout(self._context.project, self._options.stream_name)
        self._read_at = anyio.current_time()
