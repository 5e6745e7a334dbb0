"""Instance: one child process that serves requests until it is ended.

    starting ──▶ ready, with 0 to ``concurrency`` calls
        └──────────┴──▶ ended ──▶ closed

- ``ended``: the instance was killed or dismissed, or has exited. All callers that waited for an answer have a result,
  and the instance accepts no further requests.
- ``closed``: the process has exited and the socket is closed. The owner then removes the cgroup and temporary folder.

If one request is cancelled, runs too long, or is abandoned by its caller, the whole instance is killed, because user
code cannot be stopped otherwise. All other requests of the instance then end, too. Each ``Call`` records whether its
request was the cause.
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

Key = tuple[int, str, int, int]  #: function_id, version, revision, memory; an instance serves one key

_TICKETS = 1 << 32
_EXIT_TIMEOUT = 2.0  #: seconds from the end of the connection to the exit of the process and its status
_MAX_READS = 256  #: reads of the socket of an ended instance


class End(StrEnum):
    """Reason why an instance ended."""

    RETIRED = "retired"  #: dismissed: idle for too long, outdated, or its memory is needed
    EXITED = "exited"  #: exited, or was killed by the kernel, by a user or for its memory use
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  #: the caller stopped waiting for the answer
    GARBLED = "garbled"  #: user code wrote to the socket
    UNFIT = "unfit"  #: could not load the code, or its initializer failed


HEAP_EXHAUSTED = b"JavaScript heap out of memory"  #: written by Node.js to stderr before it aborts

#: Codes that workers send. User code must have forged any other.
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
    """Receiver of an instance's end. ``instance_ended`` is called once, and ``instance_closed`` once after it."""

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_closed(self, instance: Instance) -> None: ...


class Call:
    """Request assigned to an instance, or the start of an instance, which has the ticket ``ITSELF``."""

    __slots__ = ("cancelled", "instance", "invocation", "log_buffer", "responsible", "ticket", "unsent", "waiter")

    def __init__(self, instance: Instance, invocation: Invocation | None, log_buffer: LogBuffer | None = None) -> None:
        self.instance = instance
        self.invocation = invocation  #: None: started without a request
        self.log_buffer = log_buffer  #: created with the first line
        self.ticket = ITSELF
        self.waiter: asyncio.Future[Answer | None] | None = None
        self.responsible = False  #: the instance ended because of this call, or served no other
        self.unsent = False
        self.cancelled = False  #: must not run, neither here nor on another instance

    def cancel(self) -> bool:
        """Kill the instance in order to end the request. Return False if the request has ended already.

        The start of an instance can be cancelled even after the worker's answer, because the request follows.
        """
        waiter = self.waiter
        if self.ticket != ITSELF and waiter is not None and waiter.done() and (waiter.cancelled() or waiter.result()):
            return False
        self.cancelled = True
        self.instance.kill(End.CANCELLED, self)
        return True

    @property
    def answered(self) -> bool:
        """True if the request has its answer, or certainly receives none."""
        return self.waiter is not None and self.waiter.done()

    def give_up(self) -> None:
        """End the wait of the request's caller without an answer."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def unread(self) -> bool:
        """True if the instance certainly ended before it read the request, so that no user code ran for it."""
        # Evaluated late, because the loop may report the connection reset after the exit.
        return self.unsent or (self.responsible and self.instance.end is End.EXITED and self.instance.unread)

    def written(self) -> Written:
        return NOTHING if self.log_buffer is None else self.log_buffer.written()


class Instance(asyncio.Protocol):
    """Child process that serves requests of one function, and the engine's connection to it."""

    def __init__(self, spawned: Spawned, *, key: Key, function: Function, owner: Owner, recorder: LogRecorder) -> None:
        self.key = key
        self.memory = key[-1]  #: MB
        self.concurrency = function.concurrent_num
        self.calls: dict[int, Call] = {}  #: by ticket
        self.end: End | None = None
        self.exit_status: int | None = None
        self.out_of_memory = False
        self.heap_exhausted = False  #: Node.js reported it before its abort, or user code wrote the same
        self.unread = False  #: certainly ended before it read the last frame
        self.ready = False
        self.obsolete = False  #: to be retired when its calls are done
        self.on_work: Callable[[Instance], None] | None = None  #: called when a request is sent to the instance
        self.assigned = 0  #: requests, at most ``concurrency``
        self.idle_since = 0.0
        self.closed = asyncio.Event()
        self.enclosing: Future[Enclosure | OSError] | None = None
        self.enclosure: Enclosure | None = None
        self.log_buffer: LogBuffer | None = None  #: lines that belong to no call
        self._function, self._owner, self._recorder = function, owner, recorder
        self._pre_stop = function.pre_stop_limit if function.pre_stop_handler else 0
        self._loop = asyncio.get_running_loop()
        self._child, self._socket = spawned.child, spawned.socket
        self._fd = self._socket.fileno()
        self._transport: asyncio.Transport | None = None
        self._connecting = self._connected = False
        self._reader = FrameReader()
        self._ticket = ITSELF
        self._kill_timer: asyncio.TimerHandle | None = None
        self._output = Output(spawned.stdout, spawned.stderr, self._record_raw, self._loop)
        self._child.watch(self._exited)

    @property
    def pid(self) -> int:
        return self._child.pid

    async def spawned(self) -> None:
        """Wait until the process exists. If the process could not be started, end the instance and raise OSError."""
        await self._child.spawned()

    @property
    def failure(self) -> OSError | None:
        """Error that occurred before the process could read a request, or None.

        Available when the instance is closed.
        """
        return self._child.failure

    @property
    def waits(self) -> bool:
        """True if the new process waits for ``enter_cgroup`` before it does or reads anything."""
        return self._child.waits

    def enter_cgroup(self, cgroup_fds: Sequence[int]) -> bool:
        """Send the process the given descriptors, by which it enters its cgroups. Close the descriptors in the engine.

        Return False if the process has exited.
        """
        try:
            if self._connected:  # otherwise its end of the socket is closed: it is exiting, and the status follows
                socket.send_fds(self._socket, [b"\0"], cgroup_fds)
            return self._connected
        except (BrokenPipeError, ConnectionResetError):
            return False
        finally:
            for fd in cgroup_fds:
                os.close(fd)

    async def connect(self) -> None:
        """Open the connection to the process. Call once, before the first request."""
        self._connecting = True
        transport, _ = await self._loop.create_unix_connection(lambda: self, sock=self._socket)
        self._transport = transport
        if not self._child.alive:  # exited meanwhile
            transport.abort()

    async def request(self, call: Call, frame: bytes, seconds: float) -> Answer | None:
        """Send a frame and wait for the answer. Return None if the instance ended instead; ``end`` is then the reason.

        Kill the instance if it does not answer within ``seconds``.
        """
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
        """Send an invocation and wait for the answer. Return None, or kill the instance, as ``request`` does."""
        call.ticket = self._ticket = (self._ticket + 1) % _TICKETS or 1
        frame = invoke_frame(call.ticket, invocation.request_id, invocation.alias, invocation.payload)
        return self.request(call, frame, seconds)

    def kill(self, end: End, cause: Call | None = None) -> None:
        """Kill the process and the processes that it started.

        ``cause`` is the ``Call`` because of which it is killed, if any. Callers that wait for an answer receive a
        result at once, before the process has exited.
        """
        if self.end is None:
            self._kill_group()
            self._end(end, cause)
        elif self._kill_timer is not None:
            self._kill_group()

    def dismiss(self) -> None:
        """End an idle instance: have it run its pre-stop handler and exit.

        Kill it if that takes longer than allowed.
        """
        if self.end is not None:
            return
        if not (self._pre_stop and self.ready and self._connected):
            self.kill(End.RETIRED)
            return
        self._kill_timer = self._loop.call_later(self._pre_stop, self._kill_group)
        self._end(End.RETIRED)
        assert self._transport is not None
        self._transport.write(stop_frame())

    def _time_out(self, call: Call) -> None:
        if not call.answered:
            self.kill(End.TIMEOUT, call)

    def _send(self, call: Call, frame: bytes) -> None:
        # Written directly to the socket: the child runs sooner, and an error means that it read nothing.
        transport = self._transport
        assert transport is not None
        try:
            # The frame of an earlier call may still be in the transport's buffer.
            free = self._connected and (len(self.calls) == 1 or not transport.get_write_buffer_size())
            sent = os.write(self._fd, frame) if free else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            sent = -1
        if sent < 0 or not self._connected:
            call.unsent = True
            self.kill(End.EXITED)
        elif sent < len(frame):
            transport.write(frame[sent:])

    def _end(self, end: End, cause: Call | None = None) -> None:
        self.end = end
        if cause is not None:  # also if its answer has just arrived
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

    # --- received frames ---

    def _receive(self, frame: Answer | Logged) -> None:
        call = self.calls.get(frame.ticket)
        if isinstance(frame, Logged):
            self._record(call, frame.at, frame.stream, frame.text)
            return
        if call is not None and call.answered and self.end is not None:
            return  # too late
        ready = frame.kind == READY
        if call is None or call.waiter is None or call.answered or ready != (frame.ticket == ITSELF):
            raise FrameError(f"answer to ticket {frame.ticket}, which is not waiting for one")
        if frame.code not in _WORKER_CODES:
            raise FrameError(f"answer with the unknown code {frame.code}")
        if ready or self.concurrency == 1:
            self._output.drain()
        call.waiter.set_result(frame)

    def _record_raw(self, stream: int, text: bytes) -> None:
        """Record raw output in the log of the running request, or of the instance if it may serve several requests."""
        self.heap_exhausted = self.heap_exhausted or (stream == STDERR and HEAP_EXHAUSTED in text)
        own = self.concurrency == 1 or ITSELF in self.calls
        call = next(iter(self.calls.values()), None) if own else None
        self._record(call, self._recorder.now(), stream, text)

    def _record(self, call: Call | None, at: int, stream: int, text: bytes) -> None:
        writer, invocation = (self, None) if call is None else (call, call.invocation)
        if writer.log_buffer is None:
            writer.log_buffer = self._recorder.begin(invocation)
        self._recorder.write(writer.log_buffer, self._function, at, stream, text)

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connected = True

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._receive(frame)
        except FrameError:
            self.kill(End.GARBLED)

    def connection_lost(self, error: Exception | None) -> None:
        self._connected = False
        # The kernel resets a connection whose other end was closed with something unread in it.
        self.unread = self.unread or isinstance(error, ConnectionResetError | BrokenPipeError)
        if self._child.alive and self._kill_timer is None:
            # The process is exiting and its status follows, or user code has closed the socket and it is unusable.
            self._kill_timer = self._loop.call_later(_EXIT_TIMEOUT, self._kill_group)
        self._close_if_done()

    def _exited(self) -> None:
        """Kill the rest of the process group after the exit of the process, and end the instance.

        The process is a zombie and still holds its pid, so the group with this number is certainly its own.
        """
        self._kill_group()
        if self.enclosure is not None and self.enclosure.out_of_memory():
            self.out_of_memory = True
        self.exit_status = self._child.reap()
        if self._transport is not None and self._transport.get_write_buffer_size() > 0:
            self.unread = True
        self._read_rest()
        if self.end is None:
            self._end(End.EXITED)
        if self._transport is not None:
            self._transport.abort()
        self._close_if_done()

    def _read_rest(self) -> None:
        """Read log lines and answers that are still in the socket.

        The event loop would read them only after the end is handled.
        """
        for _ in range(_MAX_READS if self._connected else 0):
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

    def _close_if_done(self) -> None:
        if self._child.alive or self._connected or self.closed.is_set():
            return
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if not self._connecting:  # otherwise a transport owns the socket, even if ``connect`` was cancelled
            self._socket.close()
        self._output.close()
        self.closed.set()
        self._owner.instance_closed(self)
