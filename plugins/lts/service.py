"""Service of LTS: the log streams, their API, the triggers that read them, and the lines that functions write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import anyio
from anyio.abc import TaskStatus
from msgspec import Struct

from engine import PluginContext
from plugins.lts.api import TAGS_LIMIT, LtsApi
from plugins.lts.bodies import LIMIT
from plugins.lts.engine_lines import FunctionLog, StatusStreams
from plugins.lts.groups import Groups
from plugins.lts.lines import Lines
from plugins.lts.options import LtsSettings

#: Seconds for which lines are kept for a stopped trigger. Longer than the restart of a failed source takes.
MAX_WAIT = 600.0
#: Seconds after the start by which all existing triggers read; afterwards, rows may be deleted to make room.
SETTLED = 60.0
SWEEP = 3600.0  #: seconds between deletions of expired lines
CALM = 5.0  #: seconds between deletions that make room
DAY = 86_400


class Reader(Struct, kw_only=True, eq=False):
    stream: str
    function: str  #: package:name
    position: int = 0  #: number of the next row
    left_at: float | None = None


class Readers:
    """Positions of all triggers that read a stream.

    The position of a stopped trigger is kept for ``MAX_WAIT`` seconds, so that its unread lines exist if it starts
    again.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._readers: dict[str, Reader] = {}  #: keyed by trigger

    @contextmanager
    def reading(self, trigger_id: str, stream: str, function: str) -> Iterator[Reader]:
        reader = self._readers[trigger_id] = Reader(stream=stream, function=function)
        try:
            yield reader
        finally:
            reader.left_at = self._now()

    @property
    def running(self) -> bool:
        return any(reader.left_at is None for reader in self._readers.values())

    def listens(self, stream: str, function: str) -> bool:
        """Return whether a running trigger of a function other than ``function`` reads the stream."""
        return any(
            reader.stream == stream and reader.function != function and reader.left_at is None
            for reader in self._readers.values()
        )

    def needed(self, stream: str) -> int | None:
        """Return the number of a stream's first row that some trigger has not read, or None if no trigger reads it."""
        late = self._now() - MAX_WAIT
        self._readers = {
            key: reader for key, reader in self._readers.items() if reader.left_at is None or reader.left_at > late
        }
        return min((reader.position for reader in self._readers.values() if reader.stream == stream), default=None)


class LtsService:
    """Part of LTS that runs once for all its triggers. Usable after ``ready`` is set."""

    lines: Lines
    groups: Groups

    def __init__(self, settings: LtsSettings) -> None:
        self._settings = settings
        self.ready = asyncio.Event()
        self._subscription = ExitStack()

    async def run(self, context: PluginContext, *, task_status: TaskStatus[None]) -> None:
        if not self.ready.is_set():  # after a failure, running triggers keep using the loaded streams
            await self._open(context)
        api = LtsApi(self.groups, self.lines, labels=self._settings.labels)
        async with anyio.create_task_group() as tasks:
            with (
                api.table.served(context, LIMIT),
                api.tags.served(context, TAGS_LIMIT),
                context.logs.status_lines_stored_by(StatusStreams(self.groups, self.lines)),
            ):
                tasks.start_soon(self._function_log.run)
                tasks.start_soon(self._expire_often, context)
                self.ready.set()
                task_status.started()
                await anyio.sleep(SETTLED)
                while True:
                    await self.lines.half_full.wait()
                    await self.lines.make_room(self._readers.needed)
                    await anyio.sleep(CALM)

    @contextmanager
    def reading(self, context: PluginContext, trigger_id: str, stream: str, function: str) -> Iterator[Reader]:
        """Register a trigger of ``function`` as reader of a stream until the block ends.

        The engine passes on lines that functions write only while at least one trigger is registered.
        """
        if not self._readers.running:
            self._subscription.enter_context(context.logs.subscribed(self._function_log.collect))
        try:
            with self._readers.reading(trigger_id, stream, function) as reader:
                yield reader
        finally:
            if not self._readers.running:
                self._subscription.close()

    # --- inside ---------------------------------------------------------------------------------------------

    async def _open(self, context: PluginContext) -> None:
        settings, now = self._settings, context.clock.now
        self.groups = Groups(context.store, now, settings.retention, context.limits)
        await self.groups.load()
        self.lines = Lines(context.store, now, settings.size)
        await self.lines.load()
        self._readers = Readers(now)
        self._function_log = FunctionLog(self.lines, self._readers.listens, now, context.region, labels=settings.labels)

    async def _expire_often(self, context: PluginContext) -> None:
        while True:
            for stream in self.lines.streams:
                oldest = context.clock.expiry.now() - self.groups.days(stream) * DAY
                await self.lines.expire(stream, int(oldest * 1000))
            await anyio.sleep(SWEEP)
