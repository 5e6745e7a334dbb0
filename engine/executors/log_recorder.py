"""Recorder of the output of instances."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from engine.executors.log_buffer import LogBuffer
from engine.executors.log_files import LogFiles
from engine.logs.feed import LogBoard
from engine.logs.lines import ERROR, encode
from engine.model import Function, Invocation
from engine.model.clock import Clock

_OWN_LIMIT = 64 << 10  #: bytes of an instance's own lines


class LogRecorder:
    """Recorder of the output of instances.

    Adds lines to the buffer of their request and publishes them on the log board. ``limit`` is the size of a request's
    buffer in bytes. Lines that belong to no request go to ``files`` when their instance has ended.
    """

    def __init__(self, files: LogFiles, *, limit: int, clock: Clock, board: LogBoard) -> None:
        self._files, self._limit, self._clock, self._board = files, limit, clock, board
        self._thread = ThreadPoolExecutor(1, "functiond-log")

    def now(self) -> int:
        """Return the time in milliseconds since the epoch, for raw output, which contains no time."""
        return int(self._clock.now() * 1000)

    def begin(self, invocation: Invocation | None) -> LogBuffer:
        return LogBuffer(invocation, self._limit if invocation else min(self._limit, _OWN_LIMIT))

    def write(self, log_buffer: LogBuffer, function: Function, at: int, stream: int, text: bytes) -> None:
        lines = encode(at, stream, text)
        log_buffer.add(lines)
        self._board.publish(function, log_buffer.invocation, lines)

    def end(self, function: Function, invocation: Invocation, error: str) -> bytes:
        """Publish the error with which a run ends. Return its lines."""
        lines = encode(self.now(), ERROR, error.encode("utf-8", "replace"))
        self._board.publish(function, invocation, lines)
        return lines

    def keep(self, function_id: int, log_buffer: LogBuffer) -> None:
        """Write the lines of an ended instance that belong to no request to a file, in a thread."""
        self._thread.submit(self._files.keep_instance, function_id, log_buffer.written())

    def close(self) -> None:
        """Wait until all files are written. Blocks."""
        self._thread.shutdown()
