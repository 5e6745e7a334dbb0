"""How far a trigger has come in each partition: its cursors, which move with the requests made from the records."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import Event, TriggerContext
from plugins.dis.access import Layout, Start


class ShardCheckpoint(Struct, frozen=True, kw_only=True, omit_defaults=True):
    stream: str  #: id: another stream of the same name is read from its beginning
    name: str = ""  #: of the stream: what is known of another one says nothing. Empty in what was kept long ago
    after: str = ""  #: sequence number of the last record taken
    since: int = 0  #: milliseconds: nothing older is taken
    drained: bool = False  #: closed, and read to its end
    request: str = ""  #: id of what the last batch started, if its end is waited for

    def start(self) -> Start:
        if self.after:
            return Start(type="AFTER_SEQUENCE_NUMBER", sequence_number=self.after)
        return Start(type="AT_TIMESTAMP", timestamp=self.since) if self.since else Start(type="TRIM_HORIZON")


class ShardCheckpoints:
    """By partition ids. Raises what ``accept_batch`` raises."""

    def __init__(self, context: TriggerContext, name: str, stream_id: str) -> None:
        self._context, self._begin = context, ShardCheckpoint(stream=stream_id, name=name)
        self._read = {part: msgspec.json.decode(value, type=ShardCheckpoint) for part, value in context.cursors.items()}
        self._places = {part: place for part, place in self._read.items() if place.stream == stream_id}

    def of(self, partition: str) -> ShardCheckpoint:
        return self._places.get(partition) or self._begin

    async def begin_late(self, layout: Layout) -> None:
        """A trigger that is new to the stream takes what comes since it was made, or turned to it.

        Partitions that come later are read whole.
        """
        if not any(place.name in ("", self._begin.name) for place in self._read.values()):
            since = int(self._context.since * 1000)
            late = {part.id: replace(self._begin, since=since, drained=not part.open) for part in layout.parts}
            await self._move([], {**dict.fromkeys(self._read, self._begin), **late})

    async def move(self, partition: str, events: Sequence[Event], after: str, *, serial: bool = False) -> None:
        """``serial`` notes the request, too: the next run must know whose end it waits for."""
        place = replace(self._begin, after=after)
        ids = await self._move(events, {partition: place})
        if serial and ids[-1]:
            await self._move([], {partition: replace(place, request=ids[-1])})

    async def drain(self, partition: str) -> None:
        await self._move([], {partition: replace(self._begin, drained=True)})

    async def _move(self, events: Sequence[Event], checkpoints: dict[str, ShardCheckpoint]) -> Sequence[str]:
        cursors = {name: msgspec.json.encode(place) for name, place in checkpoints.items()}
        ids = await self._context.accept_batch(events, cursors)
        self._places.update(checkpoints)
        return ids
