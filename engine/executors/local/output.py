"""Raw output of an instance: bytes written to descriptors 1 and 2 by native code and by programs that it started.

Raw output is read from two pipes, always, so that a writer never blocks. The pipe shows whether a line was written to
stdout or stderr, but not by which request. Output of user code that the worker captures is sent through the socket
instead, with the ticket of its request.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

from engine.logs.lines import STDERR, STDOUT
from engine.runtimes.protocol import LONGEST_TEXT

_PIPE = 1 << 16  #: bytes per read: a pipe's usual capacity
_DRAIN = 16  #: reads that empty a pipe of the largest size; more would follow a fast writer without end

Sink = Callable[[int, bytes], None]  #: called with a stream and whole lines


class Output:
    """Reader of the stdout and stderr pipes of an instance. Owns the reading ends, which must be non-blocking."""

    def __init__(self, stdout: int, stderr: int, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._waiting = select.epoll()  # polls both pipes at once, far cheaper than empty reads
        for fd in (stdout, stderr):
            self._waiting.register(fd, select.EPOLLIN)
        self._pipes = (Pipe(stdout, STDOUT, sink, loop), Pipe(stderr, STDERR, sink, loop))

    def drain(self) -> None:
        """Read all data that is in the pipes and pass it to ``sink``, including unfinished lines."""
        if self._waiting.poll(0, 1) or self._pipes[0].unfinished or self._pipes[1].unfinished:
            for pipe in self._pipes:
                pipe.drain()

    def close(self) -> None:
        """Pass the remaining data to ``sink``, then close the pipes."""
        for pipe in self._pipes:
            pipe.drain()
            pipe.release()
        self._waiting.close()


class Pipe:
    """Reader of one pipe, which passes whole lines to ``sink``."""

    def __init__(self, fd: int, stream: int, sink: Sink, loop: asyncio.AbstractEventLoop) -> None:
        self._fd, self._stream, self._sink, self._loop = fd, stream, sink, loop
        self.unfinished = b""  #: start of an incomplete line
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
        if not data:  # closed by every writer; a registered reader would be called forever
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
