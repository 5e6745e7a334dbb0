"""Checkpoints of a DIS trigger, one per partition of its stream.

Each is a cursor of the trigger, so it is stored in the transaction that accepts the requests.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import Event, TriggerContext
from plugins.dis.access import Layout, Start


class ShardCheckpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Position of a trigger in one partition. Valid only for the stream whose id is ``stream``."""

    stream: str  #: stream id; another stream of the same name is read from its beginning
    name: str = ""  #: stream name; empty in cursors of earlier versions
    after: str = ""  #: sequence number of the last accepted record
    since: int = 0  #: milliseconds; older records are skipped
    drained: bool = False  #: the partition is closed, and read to its end
    request: str = ""  #: id of the last batch's request, if a serial trigger waits for its end

    def start(self) -> Start:
        if self.after:
            return Start(type="AFTER_SEQUENCE_NUMBER", sequence_number=self.after)
        return Start(type="AT_TIMESTAMP", timestamp=self.since) if self.since else Start(type="TRIM_HORIZON")


class ShardCheckpoints:
    """Checkpoints of one trigger, keyed by partition id.

    Methods raise the errors with which ``TriggerContext.accept_batch`` refuses events.
    """

    def __init__(self, context: TriggerContext, name: str, stream_id: str) -> None:
        self._context, self._begin = context, ShardCheckpoint(stream=stream_id, name=name)
        self._read = {part: msgspec.json.decode(value, type=ShardCheckpoint) for part, value in context.cursors.items()}
        self._checkpoints = {part: one for part, one in self._read.items() if one.stream == stream_id}

    def of(self, partition: str) -> ShardCheckpoint:
        return self._checkpoints.get(partition) or self._begin

    async def begin_late(self, layout: Layout) -> None:
        """Set checkpoints that skip records older than the trigger, if the trigger has never read this stream.

        Reading starts at the time when the trigger was created, or was changed to this stream. Partitions that are
        created later are read from their beginning.
        """
        if not any(one.name in ("", self._begin.name) for one in self._read.values()):
            since = int(self._context.since * 1000)
            late = {part.id: replace(self._begin, since=since, drained=not part.open) for part in layout.parts}
            await self._move([], {**dict.fromkeys(self._read, self._begin), **late})

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
        self._checkpoints.update(checkpoints)
        return ids
