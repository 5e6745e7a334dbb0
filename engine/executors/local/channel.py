"""Channel to a process of this machine: a socket for frames, and two pipes for raw output.

The engine always reads the pipes, so that a writer never blocks. An agent stops while its connection is full.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Sequence

from engine.executors.local.spawn import Spawned
from engine.executors.process import ChannelOwner
from engine.logs.lines import STDERR, STDOUT
from engine.runtimes.protocol import LONGEST_TEXT

_MAX_READS = 256  #: reads of the socket of an ended instance
_PIPE = 1 << 16  #: bytes per read: a pipe's usual capacity
_DRAIN = 16  #: reads that empty a pipe of the largest size; more would follow a fast writer without end

Sink = Callable[[int, bytes], None]  #: called with a stream and whole lines


class LocalChannel(asyncio.Protocol):
    """Engine's ends of the socket and of the pipes of one process (protocol ``Channel``)."""

    def __init__(self, spawned: Spawned, owner: ChannelOwner) -> None:
        """Begin to read the pipes. The socket is read after ``open``."""
        self._socket, self._owner = spawned.socket, owner
        self._fd = self._socket.fileno()
        self._loop = asyncio.get_running_loop()
        self._output = Output(spawned.stdout, spawned.stderr, owner.record_output, self._loop)
        self._transport: asyncio.Transport | None = None
        self._opening = self._buffered = False
        self.connected = False

    async def open(self) -> None:
        """Begin to send and to receive frames."""
        self._opening = True
        self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=self._socket)

    def send_descriptors(self, fds: Sequence[int]) -> bool:
        """Send descriptors to a process that waits for them, and close them in the engine.

        Return False if the process has exited.
        """
        try:
            if self.connected:  # otherwise its end of the socket is closed: it is exiting, and the status follows
                socket.send_fds(self._socket, [b"\0"], fds)
            return self.connected
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            for fd in fds:
                os.close(fd)

    def set_reading(self, reading: bool) -> None:
        """Read socket and pipes, or let a process that writes to them wait."""
        transport = self._transport
        if transport is not None and self.connected and not transport.is_closing():
            (transport.resume_reading if reading else transport.pause_reading)()
        self._output.set_reading(reading)

    # --- Channel ---

    @property
    def unsent(self) -> bool:
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    def write(self, frame: bytes) -> bool:
        transport = self._transport
        if transport is None or not self.connected:
            return False
        # An earlier frame may still be in the transport's buffer.
        self._buffered = self._buffered and transport.get_write_buffer_size() > 0
        # Written directly to the socket: the process runs sooner, and an error means that it read nothing.
        try:
            sent = 0 if self._buffered else os.write(self._fd, frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return False
        if sent < len(frame):
            transport.write(frame[sent:])
            self._buffered = True
        return True

    def read_rest(self) -> bool:
        for _ in range(_MAX_READS if self.connected else 0):
            try:
                data = os.read(self._fd, 1 << 16)
            except ConnectionResetError:
                return True
            except OSError:
                return False
            if not data:
                return False
            self._owner.received(data)
        return False

    def read_output(self) -> None:
        self._output.drain()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        if not self._opening:  # otherwise a transport owns the socket, even if ``open`` was cancelled
            self._socket.close()
        self._output.close()

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.connected = True

    def data_received(self, data: bytes) -> None:
        self._owner.received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.connected = False
        # The kernel resets a connection whose other end was closed with something unread in it.
        self._owner.disconnected(unread=isinstance(error, ConnectionResetError | BrokenPipeError))


class Output:
    """Reader of the stdout and stderr pipes of an instance. Owns the reading ends, which must be non-blocking.

    Native code and programs that the instance started write to them. The pipe shows whether a line was written to
    stdout or stderr, but not by which request. Output of user code that the worker captures is sent through the socket
    instead, with the ticket of its request.
    """

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

    def set_reading(self, reading: bool) -> None:
        for pipe in self._pipes:
            pipe.set_reading(reading)

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

    def set_reading(self, reading: bool) -> None:
        if self._fd >= 0 and reading:
            self._loop.add_reader(self._fd, self._read)
        elif self._fd >= 0:
            self._loop.remove_reader(self._fd)

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
