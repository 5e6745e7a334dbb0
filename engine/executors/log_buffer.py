"""The lines of one request, or of an instance itself: kept up to a limit, newest last."""

from __future__ import annotations

from typing import NamedTuple

from engine.logs.feed import LogBoard
from engine.logs.lines import NOTE, encode, last
from engine.model import Function, Invocation
from engine.model.clock import Clock

_OWN_LIMIT = 64 << 10  #: bytes of lines that belong to no request


class Written(NamedTuple):
    """Lines as ``engine.logs.lines`` keeps them, and how many bytes before them were too many."""

    kept: bytes
    dropped: int

    def whole(self) -> bytes:
        """With a line in front that tells of what was dropped."""
        if not self.dropped:
            return self.kept
        at = int(self.kept[:13])
        return encode(at, NOTE, b"[%d bytes before this were dropped]" % self.dropped) + self.kept


NOTHING = Written(b"", 0)


class LogBuffer:
    def __init__(self, invocation: Invocation | None, limit: int) -> None:
        self.invocation = invocation
        self._limit = limit
        self._lines = bytearray()
        self._dropped = 0

    def add(self, lines: bytes) -> None:
        """Lines as they are kept."""
        self._lines += lines
        if len(self._lines) > 2 * self._limit + (1 << 16):  # seldom, since it moves what is kept
            self._shorten()

    def written(self) -> Written:
        """All until now."""
        if not self._lines:
            return NOTHING
        if len(self._lines) > self._limit:
            self._shorten()
        return Written(bytes(self._lines), self._dropped)

    def _shorten(self) -> None:
        kept = last(bytes(self._lines), self._limit)
        self._dropped += len(self._lines) - len(kept)
        self._lines[:] = kept


class LogRecorder:
    """Writes down what instances say, and tells it to those who listen. ``limit`` is in bytes, for each request."""

    def __init__(self, *, limit: int, clock: Clock, board: LogBoard) -> None:
        self._limit, self._clock, self._board = limit, clock, board

    def now(self) -> int:
        """Milliseconds since the epoch, for lines that come without a time."""
        return int(self._clock.now() * 1000)

    def begin(self, invocation: Invocation | None) -> LogBuffer:
        return LogBuffer(invocation, self._limit if invocation else min(self._limit, _OWN_LIMIT))

    def write(self, log_buffer: LogBuffer, function: Function, at: int, stream: int, text: bytes) -> None:
        lines = encode(at, stream, text)
        log_buffer.add(lines)
        self._board.tell(function, log_buffer.invocation, lines)
