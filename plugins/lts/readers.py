"""Which triggers read which streams, and how far they have come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

#: Seconds for which lines are kept for a trigger that stopped: longer than a failed one takes to start again.
MAX_WAIT = 600.0


class Reader(Struct, kw_only=True, eq=False):
    stream: str
    function: str  #: package:name
    position: int = 0  #: number of the row that is read next
    left_at: float | None = None


class Readers:
    """Those that are gone count for a while, as nobody tells whether they come back."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._readers: dict[str, Reader] = {}  #: by trigger

    @contextmanager
    def reading(self, trigger_id: str, stream: str, function: str) -> Iterator[Reader]:
        reader = self._readers[trigger_id] = Reader(stream=stream, function=function)
        try:
            yield reader
        finally:
            reader.left_at = self._now()

    def listens(self, stream: str, function: str) -> bool:
        """Whether what a function writes there reaches another one."""
        return any(
            one.stream == stream and one.function != function and one.left_at is None for one in self._readers.values()
        )

    def needed(self, stream: str) -> int | None:
        """The first row that somebody has not read; None if nobody reads."""
        late = self._now() - MAX_WAIT
        self._readers = {key: one for key, one in self._readers.items() if one.left_at is None or one.left_at > late}
        return min((one.position for one in self._readers.values() if one.stream == stream), default=None)
