"""An instance: one child process that serves requests until it is ended, seen from the engine.

    starting ──▶ ready, with 0 to ``concurrency`` calls
        └──────────┴──▶ ended ──▶ gone

``ended``: nothing more is to be had of it, because it was killed, died or was dismissed; whoever waited has been told.
``gone``: the kernel says so and the socket is closed. What it started is swept up by the owner then.

Whatever ends one call before its answer ends the instance, and with it the other calls: user code cannot be stopped
in any other way. Each call learns whether the end was its own doing.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Protocol

from engine.executors.log_buffer import NOTHING, LogBuffer, LogRecorder, Written
from engine.executors.output import Output
from engine.executors.spawn import Spawned
from engine.isolation.limits import Enclosure
from engine.logs.lines import STDERR
from engine.model import Code, Function, Invocation
from engine.runtimes.protocol import ITSELF, READY, Answer, FrameError, FrameReader, Logged, invoke_frame, stop_frame

Key = tuple[int, str, int, int]  #: function_id, version, revision, memory: what an instance can serve

_TICKETS = 1 << 32
_PARTING = 2.0  #: seconds from the end of the connection to that of the process, and to the word of how it ended
_REST = 256  #: reads of what an ended instance left in its socket


class End(StrEnum):
    """Why an instance ended."""

    RETIRED = "retired"  #: no work, no room, or out of date
    DIED = "died"  #: by itself, or by a hand that is not ours
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  #: whoever waited for the answer went away
    GARBLED = "garbled"  #: user code wrote to the socket
    UNFIT = "unfit"  #: it could not load the code, or its initializer failed


HEAP_EXHAUSTED = b"JavaScript heap out of memory"  #: what Node.js writes to stderr before it aborts

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
        Code.DISK_FULL,
    }
)


class Owner(Protocol):
    """Whom an instance tells about its end; both are called once, in this order."""

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_gone(self, instance: Instance) -> None: ...


class Call:
    """One request that an instance has; with the ticket of the instance itself, its start."""

    __slots__ = ("cancelled", "instance", "invocation", "log_buffer", "responsible", "ticket", "unsent", "waiter")

    def __init__(self, instance: Instance, invocation: Invocation | None, log_buffer: LogBuffer | None = None) -> None:
        self.instance = instance
        self.invocation = invocation  #: None if it is started ahead of any
        self.log_buffer = log_buffer  #: made with its first line
        self.ticket = ITSELF
        self.waiter: asyncio.Future[Answer | None] | None = None
        self.responsible = False  #: the instance ended because of this one, or had no other to serve
        self.unsent = False
        self.cancelled = False  #: it must not go on, neither here nor on another instance

    def cancel(self) -> bool:
        """End it, and the instance; False if it is over. A start that was answered is not: its request follows."""
        waiter = self.waiter
        if self.ticket != ITSELF and waiter is not None and waiter.done() and (waiter.cancelled() or waiter.result()):
            return False
        self.cancelled = True
        self.instance.kill(End.CANCELLED, self)
        return True

    @property
    def answered(self) -> bool:
        """It has its answer, or knows that there will be none."""
        return self.waiter is not None and self.waiter.done()

    def give_up(self) -> None:
        """There will be no answer."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def unread(self) -> bool:
        """Whether it has certainly not been read before the instance died."""
        # Asked late: the loop may hear of the reset connection after the death.
        return self.unsent or (self.responsible and self.instance.end is End.DIED and self.instance.unread)

    def written(self) -> Written:
        return NOTHING if self.log_buffer is None else self.log_buffer.written()


class Instance(asyncio.Protocol):
    def __init__(self, spawned: Spawned, *, key: Key, function: Function, owner: Owner, recorder: LogRecorder) -> None:
        self.key = key
        self.memory = key[-1]  #: MB
        self.concurrency = function.concurrent_num
        self.calls: dict[int, Call] = {}  #: by ticket
        self.end: End | None = None
        self.exit_status: int | None = None
        self.out_of_memory = False
        self.heap_exhausted = False  #: so it said with its last words, unless user code said it
        self.unread = False  #: certainly ended before it had read the last that was sent
        self.ready = False
        self.obsolete = False  #: to be retired when its calls are done
        self.on_work: Callable[[Instance], None] | None = None  #: called when a request goes to it
        self.taken = 0  #: places, of as many as ``concurrency``
        self.idle_since = 0.0
        self.gone = asyncio.Event()
        self.enclosing: Future[Enclosure | OSError] | None = None
        self.enclosure: Enclosure | None = None
        self.log_buffer: LogBuffer | None = None  #: of lines that belong to no call
        self._function, self._owner, self._recorder = function, owner, recorder
        self._pre_stop = function.pre_stop_limit if function.pre_stop_handler else 0
        self._loop = asyncio.get_running_loop()
        self._child, self._socket = spawned.child, spawned.socket
        self._fd = self._socket.fileno()
        self._transport: asyncio.Transport | None = None
        self._connecting = self._connected = False
        self._reader = FrameReader()
        self._ticket = ITSELF
        self._last_words: asyncio.TimerHandle | None = None
        self._output = Output(spawned.stdout, spawned.stderr, self._note_raw, self._loop)
        self._child.watch(self._exited)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def spawned(self) -> None:
        """Returns when its process exists. Raises OSError if it could not be started; then it has ended, too."""
        await self._child.spawned()

    @property
    def failure(self) -> OSError | None:
        """What kept its process from becoming an instance; known when it is gone."""
        return self._child.failure

    @property
    def waits(self) -> bool:
        """Whether it does nothing, and reads nothing, before it is let in."""
        return self._child.waits

    def enter_cgroup(self, cgroup_fds: Sequence[int]) -> bool:
        """Through these descriptors, which are closed. False if it has ended."""
        try:
            if self._connected:  # else its end of the socket is closed: it is ending, and how is yet to be told
                socket.send_fds(self._socket, [b"\0"], cgroup_fds)
            return self._connected
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            for door in cgroup_fds:
                os.close(door)

    async def connect(self) -> None:
        """Once, before the first request."""
        self._connecting = True
        transport, _ = await self._loop.create_unix_connection(lambda: self, sock=self._socket)
        self._transport = transport
        if not self._child.alive:  # it exited meanwhile
            transport.abort()

    async def request(self, call: Call, frame: bytes, seconds: float) -> Answer | None:
        """Its answer; None if the instance ended instead, and ``end`` says why. After so many seconds it is ended."""
        if self.end is not None:
            call.unsent = True
            return None
        self.calls[call.ticket] = call
        if self.on_work is not None:
            self.on_work(self)
        waiter: asyncio.Future[Answer | None] = self._loop.create_future()
        call.waiter = waiter
        timer = self._loop.call_later(seconds, self._time_out, call)
        try:
            self._send(call, frame)
            return await waiter
        except asyncio.CancelledError:
            self.kill(End.ABANDONED, call)
            raise
        finally:
            timer.cancel()
            del self.calls[call.ticket]

    def invoke(self, call: Call, invocation: Invocation, seconds: float) -> Awaitable[Answer | None]:
        """Likewise, for an invocation."""
        call.ticket = self._ticket = (self._ticket + 1) % _TICKETS or 1
        frame = invoke_frame(call.ticket, invocation.request_id, invocation.alias, invocation.payload)
        return self.request(call, frame, seconds)

    def kill(self, end: End, cause: Call | None = None) -> None:
        """End it and all that it started, at once. Who waits for an answer is told now, not when it is gone."""
        if self.end is None:
            self._kill_group()
            self._conclude(end, cause)
        elif self._last_words is not None:
            self._kill_group()

    def dismiss(self) -> None:
        """It is not needed any more: it ends when its pre-stop handler has, or the time for that is over."""
        if self.end is not None:
            return
        if not (self._pre_stop and self.ready and self._connected):
            self.kill(End.RETIRED)
            return
        self._last_words = self._loop.call_later(self._pre_stop, self._kill_group)
        self._conclude(End.RETIRED)
        assert self._transport is not None
        self._transport.write(stop_frame())

    def _time_out(self, call: Call) -> None:
        if not call.answered:
            self.kill(End.TIMEOUT, call)

    def _send(self, call: Call, frame: bytes) -> None:
        # Straight to the socket: the child runs that much sooner, and a failure means that it read nothing.
        transport = self._transport
        assert transport is not None
        try:
            # What an earlier call sent may still be waiting for the instance to read.
            free = self._connected and (len(self.calls) == 1 or not transport.get_write_buffer_size())
            sent = os.write(self._fd, frame) if free else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1
        if sent < 0 or not self._connected:
            call.unsent = True
            self.kill(End.DIED)
        elif sent < len(frame):
            transport.write(frame[sent:])

    def _conclude(self, end: End, cause: Call | None = None) -> None:
        self.end = end
        if cause is not None:  # it is told so even if its answer has just come
            cause.responsible = True
            cause.give_up()
        self._read_rest()
        self._output.drain()
        waiting = [call for call in self.calls.values() if not call.answered]
        for call in waiting:
            call.responsible = cause is None and len(waiting) == 1
            call.give_up()
        self._owner.instance_ended(self)

    def _kill_group(self) -> None:
        self._child.kill()
        if self.enclosure is not None:
            self.enclosure.kill()

    # --- what comes back ---

    def _take(self, frame: Answer | Logged) -> None:
        call = self.calls.get(frame.ticket)
        if isinstance(frame, Logged):
            self._note(call, frame.at, frame.stream, frame.text)
            return
        if call is not None and call.answered and self.end is not None:
            return  # it came too late
        ready = frame.kind == READY
        if call is None or call.waiter is None or call.answered or ready != (frame.ticket == ITSELF):
            raise FrameError(f"an answer to {frame.ticket}, which nobody asked")
        if frame.code not in _WORKER_CODES:
            raise FrameError(f"an answer with the code {frame.code}")
        if ready or self.concurrency == 1:
            self._output.drain()
        call.waiter.set_result(frame)

    def _note_raw(self, stream: int, text: bytes) -> None:
        """Of an instance that serves several, nobody can tell whose it is."""
        self.heap_exhausted = self.heap_exhausted or (stream == STDERR and HEAP_EXHAUSTED in text)
        own = self.concurrency == 1 or ITSELF in self.calls
        call = next(iter(self.calls.values()), None) if own else None
        self._note(call, self._recorder.now(), stream, text)

    def _note(self, call: Call | None, at: int, stream: int, text: bytes) -> None:
        writer, invocation = (self, None) if call is None else (call, call.invocation)
        if writer.log_buffer is None:
            writer.log_buffer = self._recorder.begin(invocation)
        self._recorder.write(writer.log_buffer, self._function, at, stream, text)

    # --- what the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected = True

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except FrameError:
            self.kill(End.GARBLED)

    def connection_lost(self, error: Exception | None) -> None:
        self._connected = False
        # The kernel resets a connection whose other end was closed with something unread in it.
        self.unread = self.unread or isinstance(error, ConnectionResetError | BrokenPipeError)
        if self._child.alive and self._last_words is None:
            # It is dying, and how it ends is yet to be told; or user code has closed our socket, and it is of no use.
            self._last_words = self._loop.call_later(_PARTING, self._kill_group)
        self._finish()

    def _exited(self) -> None:
        """The process is a zombie now: the one moment at which its group can be killed without a doubt."""
        self._kill_group()
        if self.enclosure is not None and self.enclosure.out_of_memory():
            self.out_of_memory = True
        self.exit_status = self._child.reap()
        if self._transport is not None and self._transport.get_write_buffer_size() > 0:
            self.unread = True
        self._read_rest()
        if self.end is None:
            self._conclude(End.DIED)
        if self._transport is not None:
            self._transport.abort()
        self._finish()

    def _read_rest(self) -> None:
        """Lines and an answer may still be in the socket; the loop would bring them too late."""
        for _ in range(_REST if self._connected else 0):
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
        if self._last_words is not None:
            self._last_words.cancel()
        if not self._connecting:  # else it belongs to a transport, even if the attempt to connect was cancelled
            self._socket.close()
        self._output.close()
        self.gone.set()
        self._owner.instance_gone(self)
