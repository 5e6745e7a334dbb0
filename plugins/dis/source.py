"""Source of DIS: each partition of a stream is read in order, by its own task.

    stream exists → partitions whose parents are read to the end → read, accept with checkpoint, repeat → children

A serial trigger reads a partition further only after the invocation of the partition's last batch has ended. A
checkpoint is a sequence number, since cursors of DIS expire. Records whose retention ends before they are read, or
whose stream is deleted, are reported as lost. Records that are in memory then are still passed on.
"""

from __future__ import annotations

import anyio
from anyio.abc import TaskGroup, TaskStatus

from engine import SourceIdentity, TriggerContext
from plugins.dis.access import Layout, Page, Part, Start, StreamAccess
from plugins.dis.checkpoints import ShardCheckpoints
from plugins.dis.events import events_of
from plugins.dis.options import DisOptions
from plugins.dis.problems import EXPIRED_CURSOR, NO_STREAM, OUT_OF_RANGE, TOO_FAST, DisProblem

FETCHED = 1 << 20  #: bytes of records in one read, unless the options set it


class DisTrigger:
    def __init__(self, options: DisOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        access = await context.plugin.service.access()
        task_status.started()
        checkpoints = ShardCheckpoints(context, self._options.stream_name)
        layout = await self._await_stream(context, access, checkpoints)
        await checkpoints.leave(access, layout.stream_id)
        await checkpoints.begin(layout, late=self._options.sharditerator_type == "LATEST")
        await _Reading(context, access, self._options, checkpoints, layout).run()

    async def _await_stream(
        self, context: TriggerContext, access: StreamAccess, checkpoints: ShardCheckpoints
    ) -> Layout:
        name = self._options.stream_name
        while True:
            made = access.news(context.project, name, "", self._options.interval)
            try:
                layout = await access.layout(context.project, name)
            except DisProblem as problem:
                if problem.code != NO_STREAM:
                    raise
                context.report_problem(f"stream {name!r} does not exist: create it")
                await checkpoints.leave(access, "")
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
        parts = {part.id: part for part in self._layout.parts}
        for part in self._layout.parts:
            waits = any(parent in parts and not self._is_finished(parts[parent]) for parent in part.parents)
            if part.id not in self._begun and not waits and not self._checkpoints.of(part.id).drained:
                self._begun.add(part.id)
                readers.start_soon(self._give_up if part.expired else self._follow, part.id, readers)

    def _is_finished(self, part: Part) -> bool:
        return part.expired or self._checkpoints.of(part.id).drained

    async def _follow(self, partition: str, readers: TaskGroup) -> None:
        await self._wait_for_last(partition)
        cursor = ""
        while True:
            news = self._access.news(
                self._context.project, self._options.stream_name, partition, self._options.interval
            )
            closed = not self._part(partition).open
            try:
                cursor = cursor or await self._cursor(partition)
                page = await self._access.read(self._context.project, cursor, self._options.max_fetch_bytes or FETCHED)
                await self._note_passed(partition, page)
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
                await self._take(partition, page)
            elif closed:  # closed before the read, so no more records follow
                await self._checkpoints.drain(partition)
                await self._identity.check()
                self._begin(readers)
                return
            elif not await self._has_closed(partition):
                await news()

    async def _give_up(self, partition: str, readers: TaskGroup) -> None:
        """Report that a partition of a remote stream has expired, and cannot be read any more."""
        self._context.report_lost(f"{partition} has expired: its records that were not read are lost", 0)
        await self._checkpoints.drain(partition)

    async def _note_passed(self, partition: str, page: Page) -> None:
        """Report records whose retention ended before they were read, and move the checkpoint past them."""
        position, name = self._checkpoints.position(partition), self._options.stream_name
        if position is not None and (
            lost := await self._access.passed(self._context.project, name, partition, position, page)
        ):
            self._context.report_lost(f"retention ended for {lost} records of {partition} before they were read", lost)
            await self._checkpoints.move(partition, [], str(position + lost - 1))

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
        try:
            return await self._cursor_at(partition, self._checkpoints.of(partition).start())
        except DisProblem as problem:
            if problem.code != OUT_OF_RANGE:
                raise
        return await self._cursor_at(partition, Start(type="TRIM_HORIZON"))

    async def _cursor_at(self, partition: str, start: Start) -> str:
        try:
            return await self._access.cursor(self._context.project, self._options.stream_name, partition, start)
        finally:
            await self._identity.check()  # a stream made anew meanwhile has given the cursor, or has no such partition

    # --- layout of the stream -------------------------------------------------------------------------------

    def _part(self, partition: str) -> Part:
        found = (part for part in self._layout.parts if part.id == partition)
        return next(found, Part(id=partition, open=False, expired=True))  # DIS does not list expired ones

    async def _has_closed(self, partition: str) -> bool:
        """Return whether a partition is closed.

        Unless they were read recently, the stream's partitions are read again.
        """
        if self._part(partition).open and anyio.current_time() - self._read_at >= self._access.fresh_for:
            await self._identity.check()
        return not self._part(partition).open

    async def _read_layout(self) -> str:
        """Read the layout again, and return the id of the stream; empty if there is none."""
        try:
            self._layout = await self._access.layout(self._context.project, self._options.stream_name)
        except DisProblem as problem:
            if problem.code != NO_STREAM:
                raise
            return ""
        self._read_at = anyio.current_time()
        return self._layout.stream_id
