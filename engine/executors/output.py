"""What an instance writes to stdout and stderr: read without end, kept up to a limit, newest last."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

TAIL = 4096  #: bytes that go into the Outcome; more goes to a file
_PIPE = 1 << 16  #: what one read can bring: a pipe's usual capacity
_DRAIN = 16  #: reads that empty a pipe of the largest size; more would chase what is written meanwhile


class Written(NamedTuple):
    """What was written since the last time."""

    kept: bytes
    dropped: int  #: bytes before ``kept`` that were too many


NOTHING = Written(b"", 0)


class Output:
    """Owns the reading end of the pipe, which is non-blocking."""

    def __init__(self, fd: int, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self._fd, self._limit, self._loop = fd, limit, loop
        self._kept = bytearray()
        self._dropped = 0
        loop.add_reader(fd, self._read)

    def take(self) -> Written:
        """All that is in the pipe now, and what was read of it before: it belongs to the request that just ended."""
        self._drain()
        if not self._kept:
            return NOTHING
        written = Written(bytes(self._kept[-self._limit :]), self._dropped + max(0, len(self._kept) - self._limit))
        self._kept.clear()
        self._dropped = 0
        return written

    def close(self) -> None:
        """Nothing more will be read; what was written until now can still be taken."""
        self._drain()
        self._release()

    def _drain(self) -> None:
        for _ in range(_DRAIN):
            if self._fd < 0 or self._read() < _PIPE:
                return

    def _release(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> int:
        try:
            data = os.read(self._fd, _PIPE)
        except BlockingIOError:
            return 0
        if not data:  # every writer has closed it; a reader left registered would be called for ever
            self._release()
        self._kept += data
        if len(self._kept) > self._limit + (self._limit >> 2) + _PIPE:  # seldom, since it moves what is kept
            excess = len(self._kept) - self._limit
            self._dropped += excess
            del self._kept[:excess]
        return len(data)


def tail(written: Written) -> bytes:
    """The end of it, for the Outcome."""
    return written.kept[-TAIL:]


def log_file(log_dir: Path, request_id: str) -> Path:
    """Where the whole log of an invocation lies, if it was longer than the tail."""
    return log_dir / request_id[11:13] / request_id  # the low bits of its millisecond: 256 folders


def keep_log(log_dir: Path, request_id: str, written: Written) -> None:
    """Write the log of an invocation's newest attempt, or drop that of an earlier one. Blocks; never raises.

    It is not synchronised to disk: a log is a help, not a promise.
    """
    file = log_file(log_dir, request_id)
    try:
        if len(written.kept) <= TAIL:
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        note = f"[{written.dropped} bytes before this were dropped]\n" if written.dropped else ""
        file.write_bytes(note.encode() + written.kept)
    except OSError:
        pass  # a full disk must not turn a success into a failure; the tail is in the Outcome


def framed_log(
    log: bytes, *, request_id: str, version: str, seconds: float, memory_used: int, memory_size: int
) -> bytes:
    """A log between the two lines that the platform puts around it: ``memory_used`` in bytes, ``memory_size`` in MB."""
    milliseconds = seconds * 1000
    start = f"Start invoke request '{request_id}', version: {version}\n"
    finish = (
        f"Finish invoke request '{request_id}', duration: {milliseconds:.3f}ms, "
        f"billing duration: {-int(-milliseconds // 1)}ms, memory used: {memory_used / (1 << 20):.3f}MB, "
        f"billing memory: {memory_size}MB\n"
    )
    between = b"" if not log or log.endswith(b"\n") else b"\n"
    return start.encode() + log + between + finish.encode()
