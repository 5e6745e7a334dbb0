"""How far a trigger has come in each partition: its cursors, which move with the requests made from the records."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from engine import Event, TriggerContext
from plugins.dis.access import Layout, Start


class Place(Struct, frozen=True, kw_only=True, omit_defaults=True):
    stream: str  #: id: another stream of the same name is read from its beginning
    after: str = ""  #: sequence number of the last record taken
    since: int = 0  #: milliseconds: nothing older is taken
    drained: bool = False  #: closed, and read to its end
    request: str = ""  #: id of what the last batch started, if its end is waited for

    def start(self) -> Start:
        if self.after:
            return Start(type="AFTER_SEQUENCE_NUMBER", sequence_number=self.after)
        return Start(type="AT_TIMESTAMP", timestamp=self.since) if self.since else Start(type="TRIM_HORIZON")


class Places:
    """By partition ids. Raises what ``accept_batch`` raises."""

    def __init__(self, context: TriggerContext, stream_id: str) -> None:
        self._context, self._stream = context, stream_id
        read = {name: msgspec.json.decode(value, type=Place) for name, value in context.cursors.items()}
        self._new = not read
        self._places = {name: place for name, place in read.items() if place.stream == stream_id}

    def of(self, partition: str) -> Place:
        return self._places.get(partition) or Place(stream=self._stream)

    async def begin_late(self, layout: Layout) -> None:
        """A trigger that is new takes what comes since it was made. Partitions that come later are read whole."""
        if self._new:
            since = int(self._context.since * 1000)
            await self._move(
                [],
                {part.id: Place(stream=self._stream, since=since, drained=not part.open) for part in layout.parts},
            )

    async def move(self, partition: str, events: Sequence[Event], after: str, *, serial: bool = False) -> None:
        """``serial`` notes the request, too: the next run must know whose end it waits for."""
        place = Place(stream=self._stream, after=after)
        ids = await self._move(events, {partition: place})
        if serial and ids[-1]:
            await self._move([], {partition: msgspec.structs.replace(place, request=ids[-1])})

    async def drain(self, partition: str) -> None:
        await self._move([], {partition: Place(stream=self._stream, drained=True)})

    async def _move(self, events: Sequence[Event], places: dict[str, Place]) -> Sequence[str]:
        cursors = {name: msgspec.json.encode(place) for name, place in places.items()}
        ids = await self._context.accept_batch(events, cursors)
        self._places.update(places)
        return ids
