"""Source of LTS: lines of one stream from the trigger's cursor on, in batches by size and time.

Lines are on disk before the request that sends them is answered. The cursor is stored in one transaction with the
accepted invocations. Each line therefore reaches the function once, even if the engine is killed.

A new trigger starts with lines that are received after its creation. While it is disabled, lines are kept for the
stream's retention if space permits. Lines that are deleted before they are read are reported as lost. Numbers of rows
never begin anew, also not after the deletion of a stream, so that a cursor needs no identity.

Lines that clients sent and lines that functions wrote are never put into one event, because only the latter have hops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import anyio
import msgspec
from anyio.abc import TaskStatus

from engine import Event, TriggerContext, parse_urn
from plugins.lts.groups import stream_name
from plugins.lts.lines import STATES, Item, Lines, Row, encoded, joined
from plugins.lts.options import LtsOptions, LtsSettings
from plugins.lts.service import LtsService, Reader

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
            reading = _Reading(context, service.lines, reader, self._options)
            await reading.begin()
            task_status.started()
            if not service.groups.has(context.project, group, topic):
                context.report_problem(
                    "this log stream was not created here: only functions with its id in log_config write to it"
                )
            await reading.follow()


class _Reading:
    """Single run of a trigger's source: the trigger's stream, and the position in it."""

    def __init__(self, context: TriggerContext, lines: Lines, reader: Reader, options: LtsOptions) -> None:
        self._context, self._lines, self._reader, self._options = context, lines, reader, options
        self._settings: LtsSettings = context.plugin.settings
        self._end = 0  #: end of the rows that were read, in bytes
        self._read: int | None = None  #: number of lines before the position; None: unknown

    async def begin(self) -> None:
        cursor = self._context.cursors.get(self._reader.stream)
        if cursor is None:
            position = await self._lines.seek(self._reader.stream, int(self._context.since * 1000))
            await self._accept([], position, (await self._lines.before(self._reader.stream, position)).lines)
            return
        position, *read = map(int, cursor.split())
        earliest, next_ = self._lines.span(self._reader.stream)
        # Earlier versions stored no number of lines, and began numbers anew after the deletion of a stream.
        self._reader.position = min(position, next_) if read or position <= next_ else earliest
        self._read = read[0] if read else None

    async def follow(self) -> None:
        """Accept the stream's lines in batches until cancelled."""
        stream = self._reader.stream
        while True:
            await self._lines.grown(stream, self._end + 1)
            with anyio.move_on_after(self._settings.batch_wait):
                await self._lines.grown(stream, self._end + self._settings.batch_size)
            await self._skip_deleted()
            end = self._lines.end(stream)
            numbered, position = await self._lines.read(stream, self._reader.position, BATCH_BYTES)
            rows = [row for _, row in numbered]
            if rows:
                await self._accept(rows, position, rows[-1].lines)
            self._end = rows[-1].end if rows else end

    async def _accept(self, rows: Sequence[Row], position: int, read: int) -> None:
        others = [row for row in rows if row.function not in (self._reader.function, STATES)]
        events = events_of(others, self._context.project, self._options, as_text=self._settings.logs == "string")
        await self._context.accept_batch([*events], {self._reader.stream: b"%d %d" % (position, read)})
        self._reader.position, self._read = position, read

    async def _skip_deleted(self) -> None:
        """Report lines that were deleted before they were read, and move the cursor past them."""
        earliest, _ = self._lines.span(self._reader.stream)
        if self._reader.position >= earliest:
            return
        before = (await self._lines.before(self._reader.stream, earliest)).lines
        lost = 0 if self._read is None else max(0, before - self._read)
        if lost or self._read is None:
            number = f"{lost} lines" if lost else "lines"
            self._context.report_lost(f"{number} of the stream were deleted before they were read", lost)
        await self._accept([], earliest, before)


def events_of(rows: Sequence[Row], project: str, options: LtsOptions, *, as_text: bool) -> Iterator[Event]:
    """Yield the events of lines (FunctionGraph's documented LTS event).

    ``as_text``: the field ``logs`` is a text with JSON, not the array itself.
    """
    group, topic = options.log_group_id, options.log_topic_id
    for some in ([row for row in rows if not row.function], [row for row in rows if row.function]):
        hops = max((row.hops for row in some), default=0)
        for items in joined(item for row in some for item in row.items):
            logs = items.decode() if as_text else msgspec.Raw(items)
            data = {"logs": logs, "owner": project, "log_group_id": group, "log_topic_id": topic}
            # The encoder writes the JSON of ``data`` as base64, since it is bytes.
            yield Event(payload=msgspec.json.encode({"lts": {"data": msgspec.json.encode(data)}}), hops=hops)


def example(kind: str) -> bytes:
    """Return the event of a line, as an example."""
    moment = 1_772_346_600_123  #: milliseconds
    item = Item(
        message="payment of order 7 failed",
        time=moment,
        host_name="web-1",
        ip="192.0.2.9",
        path="/var/log/shop.log",
        log_uid="5d1a2f5c-7b0e-4c39-9d0c-2f6d8f3c1a11",
        line_no=1,
    )
    options = LtsOptions(log_group_id="shop", log_topic_id="errors")
    return next(events_of([Row(moment, 0, tuple(encoded([item])))], "project1", options, as_text=True)).payload
