"""Source of LTS: lines of one stream from the trigger's cursor on, in batches by size and time.

Lines are on disk before the request that sends them is answered. The cursor is stored in one transaction with the
accepted invocations. Each line therefore reaches the function once, even if the engine is killed.

A new trigger starts with lines that are received after its creation. While it is disabled, lines are kept for the
stream's retention if space permits. If lines are lost, a warning is logged.
"""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import structlog
from anyio.abc import TaskStatus

from engine import TriggerContext, parse_urn
from plugins.lts.events import Envelope
from plugins.lts.groups import stream_name
from plugins.lts.lines import STATES, Lines, Row
from plugins.lts.options import LtsOptions
from plugins.lts.readers import Reader
from plugins.lts.service import LtsService
from plugins.lts.settings import LtsSettings

log = structlog.get_logger("functiond.lts")

BATCH_BYTES = 1 << 20  #: bytes of lines in one transaction


class LtsTrigger:
    def __init__(self, options: LtsOptions) -> None:
        self._options = options

    async def run(self, context: TriggerContext, *, task_status: TaskStatus[None]) -> None:
        service: LtsService = context.plugin.service
        await service.ready.wait()
        group, topic = self._options.log_group_id, self._options.log_topic_id
        urn = parse_urn(context.function, region=context.plugin.region, project=context.project)
        stream = stream_name(context.project, group, topic)
        await service.lines.open(stream)
        with service.reading(context.plugin, context.trigger_id, stream, f"{urn.package}:{urn.name}") as reader:
            envelope = Envelope(
                owner=context.project,
                log_group_id=group,
                log_topic_id=topic,
                as_text=context.plugin.settings.logs == "string",
            )
            reading = _Reading(context, service.lines, reader, envelope)
            await reading.begin()
            task_status.started()
            if not service.groups.has(context.project, group, topic):
                context.report_problem(
                    "this log stream was not created here: only functions with its id in log_config write to it"
                )
            await reading.follow()


class _Reading:
    """Single run of a trigger's source: the trigger's stream, and the position in it."""

    def __init__(self, context: TriggerContext, lines: Lines, reader: Reader, envelope: Envelope) -> None:
        self._context, self._lines, self._reader, self._envelope = context, lines, reader, envelope
        self._settings: LtsSettings = context.plugin.settings
        self._end = 0  #: end of the rows that were read, in bytes

    async def begin(self) -> None:
        cursor = self._context.cursors.get(self._reader.stream)
        if cursor is not None:
            _, next_ = self._lines.span(self._reader.stream)
            self._reader.position = min(int(cursor), next_)  # a cursor is beyond the end if the stream was emptied
        else:
            since = int(self._context.since * 1000)
            await self._accept([], await self._lines.seek(self._reader.stream, since))

    async def follow(self) -> None:
        """Accept the stream's lines in batches until cancelled."""
        stream = self._reader.stream
        while True:
            await self._lines.grown(stream, self._end + 1)
            with anyio.move_on_after(self._settings.batch_wait):
                await self._lines.grown(stream, self._end + self._settings.batch_size)
            end, position = self._lines.end(stream), self._next_position()
            rows, position = await self._lines.read(stream, position, BATCH_BYTES)
            if rows:
                await self._accept(rows, position)
            self._end = rows[-1].end if rows else end

    async def _accept(self, rows: Sequence[Row], position: int) -> None:
        others = [row for row in rows if row.function not in (self._reader.function, STATES)]
        await self._context.accept_batch(list(self._envelope.events(others)), {self._reader.stream: b"%d" % position})
        self._reader.position = position

    def _next_position(self) -> int:
        """Return the number of the row to read next.

        If that row was deleted before it was read, return the earliest readable row, and log a warning.
        """
        earliest, _ = self._lines.span(self._reader.stream)
        if self._reader.position < earliest:
            log.warning("lines are lost: they were deleted before they were read", trigger=self._context.trigger_id)
        return max(self._reader.position, earliest)
