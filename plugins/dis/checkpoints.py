"""Checkpoints of a DIS trigger, one per partition of its stream.

Each is a cursor of the trigger, so it is stored in the transaction that accepts the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import Event, TriggerContext
from plugins.dis.access import Layout, Span, Start, StreamAccess


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
        old = {part: one for part, one in self._stored.items() if one.stream not in ("", present)}
        for stream_id in {one.stream for one in old.values() if one.name in ("", name)}:
            spans = access.ended(stream_id)
            if spans is None:
                self._context.report_lost(f"stream {name!r} was deleted: its records that were not read are lost", 0)
            elif lost := sum(old.get(part, self._begin).unread(span) for part, span in spans.items()):
                self._context.report_lost(f"stream {name!r} was deleted before {lost} of its records were read", lost)
            await self._move([], {part: self._begin for part, one in old.items() if one.stream == stream_id})

    async def begin(self, layout: Layout, *, late: bool) -> None:
        """Set checkpoints in all partitions of a stream that the trigger has never read.

        With ``late``, records are skipped that are older than the time when the trigger was created, or was changed to
        the name of this stream. A stream that was made anew under its name is read from its beginning.
        """
        known = any(one.name in ("", self._begin.name) for one in self._stored.values())
        self._begin = begin = replace(self._begin, stream=layout.stream_id)
        if not any(one.stream == layout.stream_id for one in self._stored.values()):
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
        cursors = {name: msgspec.json.encode(one) for name, one in checkpoints.items()}
        ids = await self._context.accept_batch(events, cursors)
        self._stored.update(checkpoints)
        return ids
