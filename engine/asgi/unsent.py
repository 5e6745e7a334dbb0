"""Responses that clients do not read: their memory is bounded by cutting the clients that have stopped reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

STALLED_LIMIT = 32 << 20  #: bytes of unsent responses from which on clients are cut after ``STALL``
STALL = 20.0  #: seconds; a slow client takes bytes in steps of over 1 MB, the room that the system makes at once


class SlowReader(Protocol):
    """Connection whose client has not taken all of a response."""

    def unsent(self) -> int:
        """Return the number of bytes that the system has not taken."""

    def cut(self, *, reset: bool) -> None: ...


class _Unsent:
    """Response of one connection. All of its ``size`` stays in memory until the last byte is sent."""

    def __init__(self, size: int, left: int, now: float) -> None:
        self.size, self.left = max(size, left), left
        self.since = now  #: time at which ``left`` was seen to change


class UnsentResponses:
    """Responses larger than the send buffers of their connections.

    If they exceed ``STALLED_LIMIT``, clients that have taken nothing for ``STALL`` seconds are cut. If they exceed
    ``limit``, the clients that have taken nothing for the longest time are cut at once.
    """

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit, self._now = limit, now
        self.size = 0  #: total bytes
        self._responses: dict[SlowReader, _Unsent] = {}

    def add(self, reader: SlowReader, size: int) -> None:
        """Add the response of a connection whose buffer is full. ``size`` is the number of bytes written last."""
        self.remove(reader)
        response = self._responses[reader] = _Unsent(size, reader.unsent(), self._now())
        self.size += response.size
        if self.size > STALLED_LIMIT:
            self._cut()

    def remove(self, reader: SlowReader) -> None:
        if response := self._responses.pop(reader, None):
            self.size -= response.size

    def _cut(self) -> None:
        now = self._now()
        for reader, response in self._responses.items():
            if (left := reader.unsent()) != response.left:
                response.left, response.since = left, now
        for reader, response in sorted(self._responses.items(), key=lambda item: item[1].since):
            if self.size <= STALLED_LIMIT or (self.size <= self._limit and now - response.since < STALL):
                return
            self.remove(reader)
            reader.cut(reset=True)
