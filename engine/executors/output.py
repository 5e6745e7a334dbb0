"""What an instance writes past its runtime: raw output of descriptors 1 and 2, by native code and by what it started.

It comes through two pipes, read without end. The runtime's own lines come through the socket instead, each with the
request that it belongs to; of raw output only the stream is known.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

from engine.logs.lines import STDERR, STDOUT
from engine.runtimes.protocol import LONGEST_TEXT

_PIPE = 1 << 16  #: what one read can bring: a pipe's usual capacity
_DRAIN = 16  #: reads that empty a pipe of the largest size; more would chase what is written meanwhile

Sink = Callable[[int, bytes], None]  #: takes the stream and whole lines of it


class Output:
    """Owns the reading ends of both pipes, which are non-blocking."""

    def __init__(self, stdout: int, stderr: int, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting = select.epoll()  # to ask both at once, which is far cheaper than to read nothing
        for fd in (stdout, stderr):
            self._waiting.register(fd, select.EPOLLIN)
        self._pipes = (Pipe(stdout, STDOUT, sink, loop), Pipe(stderr, STDERR, sink, loop))

    def drain(self) -> None:
        """All that is in the pipes now goes to the sink, unfinished lines too."""
        if self._waiting.poll(0, 1) or self._pipes[0].unfinished or self._pipes[1].unfinished:
            for pipe in self._pipes:
                pipe.drain()

    def close(self) -> None:
        """Likewise, and nothing more will be read."""
        for pipe in self._pipes:
            pipe.drain()
            pipe.release()
        self._waiting.close()


class Pipe:
    def __init__(self, fd: int, stream: int, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._fd, self._stream, self._sink, self._loop = fd, stream, sink, loop
        self.unfinished = b""  #: the beginning of a line
        loop.add_reader(fd, self._read)

    def drain(self) -> None:
        for _ in range(_DRAIN):
            if self._fd < 0 or self._read() < _PIPE:
                break
        if self.unfinished:
            self._sink(self._stream, self.unfinished)
            self.unfinished = b""

    def release(self) -> None:
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
            self.release()
            return 0
        whole = data.rfind(b"\n") + 1
        if whole:
            self._sink(self._stream, self.unfinished + data[:whole])
            self.unfinished = data[whole:]
        else:
            self.unfinished += data
        if len(self.unfinished) >= LONGEST_TEXT:
            self._sink(self._stream, self.unfinished)
            self.unfinished = b""
        return len(data)
