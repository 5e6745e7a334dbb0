"""An instance: one child process that serves one request after another, seen from the engine.

    starting ──▶ idle ⇄ busy
        └─────────┴──────┴──▶ ended ──▶ gone

``ended``: nothing more is to be had of it, because it was killed or died; a request that waited has been told.
``gone``: the kernel says so (pidfd) and the socket is closed. What it started is swept up by the owner then.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from enum import StrEnum
from typing import Protocol

from engine.executors.output import Output
from engine.executors.spawn import Spawned
from engine.frames import Answer, AnswerReader, FrameError
from engine.isolation.limits import Enclosure
from engine.model import Code

Key = tuple[int, str, int, int]  #: function_id, version, revision, memory: what an instance can serve


class End(StrEnum):
    """Why an instance ended."""

    RETIRED = "retired"  #: no work, no room, or out of date
    DIED = "died"  #: by itself, or by a hand that is not ours
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  #: whoever waited for the answer went away
    GARBLED = "garbled"  #: user code wrote to the socket
    UNFIT = "unfit"  #: it could not load the code, or its initializer failed


#: What a worker may answer; anything else was made up by user code.
_WORKER_CODES = frozenset(
    {
        Code.OK,
        Code.ENTRY_NOT_FOUND,
        Code.USER_EXCEPTION,
        Code.RESPONSE_TOO_LARGE,
        Code.BAD_RESULT,
        Code.INITIALIZER_ERROR,
        Code.INIT_FAILED,
        Code.OUT_OF_MEMORY,
    }
)


class Owner(Protocol):
    """Whom an instance tells about its end; both are called once, in this order."""

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_gone(self, instance: Instance) -> None: ...


class Instance(asyncio.Protocol):
    def __init__(self, spawned: Spawned, *, key: Key, memory: int, log_size: int, owner: Owner) -> None:
        self.key = key
        self.memory = memory  #: MB
        self.end: End | None = None
        self.exit_status: int | None = None
        self.out_of_memory = False
        self.unread = False  #: certainly ended before it had read its last request
        self.obsolete = False  #: to be retired when its request is done
        self.idle_since = 0.0
        self.gone = asyncio.Event()
        self.enclosing: Future[Enclosure | OSError] | None = None
        self.enclosure: Enclosure | None = None
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._child, self._socket = spawned.child, spawned.socket
        self._fd = self._socket.fileno()
        self._transport: asyncio.Transport | None = None
        self._connecting = self._connected = False
        self._reader = AnswerReader()
        self._waiter: asyncio.Future[Answer | None] | None = None
        self.output = Output(spawned.output, log_size, self._loop)
        self._child.watch(self._exited)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def connect(self) -> None:
        """Once, before the first request."""
        self._connecting = True
        transport, _ = await self._loop.create_unix_connection(lambda: self, sock=self._socket)
        self._transport = transport
        if not self._child.alive:  # it exited meanwhile
            transport.abort()

    async def request(self, frame: bytes, seconds: float) -> Answer | None:
        """Its answer; None if it ended instead, and then ``end`` says why. After so many seconds it is ended."""
        if self.end is not None:
            return None
        waiter: asyncio.Future[Answer | None] = self._loop.create_future()
        self._waiter = waiter
        timer = self._loop.call_later(seconds, self.kill, End.TIMEOUT)
        try:
            self._send(frame)
            return await waiter
        except asyncio.CancelledError:
            self.kill(End.ABANDONED)
            raise
        finally:
            timer.cancel()
            self._waiter = None

    def kill(self, end: End) -> None:
        """End it and all that it started, at once. Who waits for an answer is told now, not when it is gone."""
        if self.end is None:
            self._kill_group()
            self._conclude(end)

    def _send(self, frame: bytes) -> None:
        # Straight to the socket: the child runs that much sooner, and a failure means that it read nothing.
        assert self._transport is not None
        try:
            sent = os.write(self._fd, frame) if self._connected else -1
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1
        if sent < 0:
            self.unread = True
            self.kill(End.DIED)
        elif sent < len(frame):
            self._transport.write(frame[sent:])

    def _conclude(self, end: End) -> None:
        self.end = end
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._owner.instance_ended(self)

    def _kill_group(self) -> None:
        self._child.kill()
        if self.enclosure is not None:
            self.enclosure.kill()

    # --- what the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected = True

    def data_received(self, data: bytes) -> None:
        try:
            answer = self._reader.feed(data)
        except FrameError:
            self.kill(End.GARBLED)
            return
        if answer is None:
            return
        if self._waiter is None or self._waiter.done() or answer.code not in _WORKER_CODES:
            self.kill(End.GARBLED)
            return
        self._waiter.set_result(answer)

    def connection_lost(self, error: Exception | None) -> None:
        self._connected = False
        # The kernel resets a connection whose other end was closed with something unread in it.
        self.unread = self.unread or isinstance(error, ConnectionResetError | BrokenPipeError)
        if self._child.alive:
            self._kill_group()  # it is dying, or user code has closed our socket: of no use either way
        self._finish()

    def _exited(self) -> None:
        """The process is a zombie now: the one moment at which its group can be killed without a doubt."""
        self._kill_group()
        self.out_of_memory = self.enclosure is not None and self.enclosure.out_of_memory()
        self.exit_status = self._child.reap()
        self._read_rest()
        if self.end is None:
            self._conclude(End.DIED)
        if self._transport is not None:
            self._transport.abort()
        self._finish()

    def _read_rest(self) -> None:
        """An answer may still be in the socket; the loop would bring it too late."""
        if self._transport is not None and self._transport.get_write_buffer_size() > 0:
            self.unread = True
        while self._connected:
            try:
                data = os.read(self._fd, 1 << 16)
            except ConnectionResetError:
                self.unread = True
                return
            except OSError:
                return
            if not data:
                return
            self.data_received(data)

    def _finish(self) -> None:
        if self._child.alive or self._connected or self.gone.is_set():
            return
        if not self._connecting:  # else it belongs to a transport, even if the attempt to connect was cancelled
            self._socket.close()
        self.output.close()
        self.gone.set()
        self._owner.instance_gone(self)
