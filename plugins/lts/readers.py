"""Triggers that read log streams, and the position of each in its stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct

#: Seconds for which lines are kept for a stopped trigger. Longer than the restart of a failed source takes.
MAX_WAIT = 600.0


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
        return any(one.left_at is None for one in self._readers.values())

    def listens(self, stream: str, function: str) -> bool:
        """Return whether a running trigger of a function other than ``function`` reads the stream."""
        return any(
            one.stream == stream and one.function != function and one.left_at is None for one in self._readers.values()
        )

    def needed(self, stream: str) -> int | None:
        """Return the number of a stream's first row that some trigger has not read, or None if no trigger reads it."""
        late = self._now() - MAX_WAIT
        self._readers = {key: one for key, one in self._readers.items() if one.left_at is None or one.left_at > late}
        return min((one.position for one in self._readers.values() if one.stream == stream), default=None)
