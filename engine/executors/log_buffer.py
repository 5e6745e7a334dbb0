"""Buffers of log lines.

Each belongs to one request, or to an instance itself, and contains the newest lines up to a limit.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.logs.lines import NOTE, encode, last
from engine.model import Invocation


class Written(NamedTuple):
    """Log lines in the format of ``engine.logs.lines``, and the number of older bytes dropped before them."""

    kept: bytes
    dropped: int

    def whole(self) -> bytes:
        """Return the lines, after a note on the dropped bytes if there are any."""
        if not self.dropped:
            return self.kept
        at = int(self.kept[:13])
        return encode(at, NOTE, b"[%d bytes before this were dropped]" % self.dropped) + self.kept


NOTHING = Written(b"", 0)


class LogBuffer:
    """Newest log lines of one request, or of an instance if ``invocation`` is None, up to ``limit`` bytes."""

    def __init__(self, invocation: Invocation | None, limit: int) -> None:
        self.invocation = invocation
        self._limit = limit
        self._lines = bytearray()
        self._dropped = 0

    def add(self, lines: bytes) -> None:
        """Append lines in the format of ``engine.logs.lines``."""
        self._lines += lines
        if len(self._lines) > 2 * self._limit + (1 << 16):  # rarely, because the kept lines are copied
            self._shorten()

    def written(self) -> Written:
        """Return the buffered lines and the number of bytes dropped up to now."""
        if not self._lines:
            return NOTHING
        if len(self._lines) > self._limit:
            self._shorten()
        return Written(bytes(self._lines), self._dropped)

    def _shorten(self) -> None:
        kept = last(bytes(self._lines), self._limit)
        self._dropped += len(self._lines) - len(kept)
        self._lines[:] = kept
