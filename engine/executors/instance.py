"""Instance: one process that serves requests until it is ended, and the calls that it serves.

    starting ──▶ ready, with 0 to ``concurrency`` calls
        └──────────┴──▶ ended ──▶ closed

- ``ended``: the instance was killed or dismissed, or has exited. All callers that waited for an answer have a result,
  and the instance accepts no further requests.
- ``closed``: the process has exited and the channel is closed.

If one request is cancelled, runs too long, or is abandoned by its caller, the whole instance is killed, because user
code cannot be stopped otherwise. All other requests of the instance then end, too. Each ``Call`` records whether its
request was the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

from engine.executors.log_buffer import NOTHING, LogBuffer, Written
from engine.executors.log_recorder import LogRecorder
from engine.executors.process import Channel, InstanceProcess
from engine.logs.lines import NOTE, STDERR
from engine.model import Code, Function, Invocation
from engine.runtimes.catalog import warning_of
from engine.runtimes.protocol import ITSELF, READY, Answer, FrameError, FrameReader, Logged, invoke_frame, stop_frame

Key = tuple[int, str, int, int]  #: function_id, version, revision, memory in MiB; an instance serves one key

_TICKETS = 1 << 32
_EXIT_TIMEOUT = 2.0  #: seconds from the end of the connection to the exit of the process and its status


def key_of(function: Function, memory: int = 0) -> Key:
    """Return the key of the function's instances that have ``memory`` MiB; 0 means the function's own size."""
    return (function.function_id, function.version, function.revision, memory or function.memory_size)


class End(StrEnum):
    """Reason why an instance ended."""

    RETIRED = "retired"  #: dismissed: idle for too long, outdated, or its memory is needed
    EXITED = "exited"  #: exited, or was killed by the kernel, by a user or for its memory use
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned"  #: the caller stopped waiting for the answer
    GARBLED = "garbled"  #: user code wrote to the channel
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


class Ended(NamedTuple):
    """End of an attempt: the instance's answer, or one in its place, and the log lines."""

    answer: Answer
    written: Written


class Call:
    """Request that waits for an instance or is assigned to one, or the start of an instance (ticket ``ITSELF``).

    ``key`` and ``function`` say which instances can serve the request.
    """

    __slots__ = (
        "assignment", "cancelled", "fresh", "function", "initialised", "instance", "invocation", "key", "log_buffer",
        "responsible", "started_by", "ticket", "unsent", "waiter",
    )  # fmt: skip

    def __init__(self, key: Key, function: Function, invocation: Invocation | None) -> None:
        self.key, self.function = key, function
        self.invocation = invocation  #: None: start of an instance without a request
        self.instance: Instance | None = None
        self.log_buffer: LogBuffer | None = None  #: created with the first line
        self.assignment: asyncio.Future[Instance | Ended | None] | None = None  #: while it waits for an instance
        self.started_by: Call | None = None  #: start of an instance that began for this request
        self.initialised = 0.0  #: seconds for which the request waited for an instance
        self.fresh = False  #: assigned when its instance became ready
        self.cancelled = False  #: must not run, neither here nor on another instance
        self.ticket = ITSELF
        self.waiter: asyncio.Future[Answer | None] | None = None
        self.responsible = False  #: the instance ended because of this call, or served no other
        self.unsent = False

    def cancel(self) -> bool:
        """Cancel the request: end its wait, or kill its instance. Return False if the request has ended already.

        A request can be cancelled until its task resumes, even if an instance has been assigned meanwhile.
        """
        if (assignment := self.assignment) is not None:
            if not assignment.done():
                assignment.set_result(None)
            elif assignment.cancelled() or assignment.exception() or isinstance(assignment.result(), Ended):
                return False
            self.cancelled = True
            return True
        waiter, instance = self.waiter, self.instance
        if instance is None and waiter is None:  # an instance is assigned, but the request is not sent yet
            self.cancelled = True
            return True
        if instance is None or (waiter is not None and waiter.done() and (waiter.cancelled() or waiter.result())):
            return False
        self.cancelled = True
        instance.kill(End.CANCELLED, self)
        return True

    def enter_start(self, start: Call) -> None:
        """Have the start that begins for the request add its lines to those of the request."""
        self.started_by = start
        start.invocation, start.log_buffer = self.invocation, self.log_buffer

    def leave_start(self) -> None:
        """Keep the lines of the start that began for the request. Its later lines are its instance's own."""
        start, self.started_by = self.started_by, None
        if start is not None:
            self.log_buffer, start.log_buffer, start.invocation = start.log_buffer, None, None

    def begin(self, instance: Instance, ticket: int) -> None:
        """Assign the call to an instance, which sends its frame next."""
        self.instance, self.ticket, self.waiter = instance, ticket, None
        self.responsible = self.unsent = False

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
        instance = self.instance
        return self.unsent or (
            instance is not None and self.responsible and instance.end is End.EXITED and instance.unread
        )

    def written(self) -> Written:
        """Return the log lines up to now, including those of the start that began for the request."""
        log_buffer = self.log_buffer or (self.started_by.log_buffer if self.started_by is not None else None)
        return NOTHING if log_buffer is None else log_buffer.written()


class InstanceOwner(Protocol):
    """Receiver of an instance's end. ``instance_ended`` is called once, and ``instance_closed`` once after it."""

    def instance_ended(self, instance: Instance) -> None: ...

    def instance_closed(self, instance: Instance) -> None: ...


class Instance:
    """Process that serves requests of one key, and the engine's channel to it."""

    def __init__(
        self,
        process: InstanceProcess,
        *,
        key: Key,
        function: Function,
        owner: InstanceOwner,
        recorder: LogRecorder,
        on_work: Callable[[Instance], None],
    ) -> None:
        """Create an instance whose process starts. ``on_work`` is called with each request while ``watched`` is True.

        The launcher calls ``connect``, and has ``exited`` called when the process has exited.
        """
        self.key = key
        self.memory = key[-1]  #: MiB
        self.concurrency = function.concurrent_num
        self.calls: dict[int, Call] = {}  #: by ticket
        self.end: End | None = None
        self.exit_status: int | None = None
        self.out_of_memory = False
        self.heap_exhausted = False  #: Node.js reported it before its abort, or user code wrote the same
        self.unread = False  #: certainly ended before it read the last frame
        self.ready = False
        self.obsolete = False  #: to be dismissed when its calls are done
        self.watched = False  #: its memory is measured while it has work
        self.assigned = 0  #: requests, at most ``concurrency``
        self.idle_since = 0.0
        self.closed = asyncio.Event()
        self.log_buffer: LogBuffer | None = None  #: lines that belong to no call
        self._function, self._owner, self._recorder, self._on_work = function, owner, recorder, on_work
        self._pre_stop = function.pre_stop_limit if function.pre_stop_handler else 0
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._channel: Channel | None = None
        self._reader = FrameReader()
        self._ticket = ITSELF
        self._warning = warning_of(function.runtime)  #: to be written to the log of the first invocation
        self._kill_timer: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def idle(self) -> bool:
        """True if the instance is ready and serves no request."""
        return self.ready and self.end is None and not self.assigned

    def connect(self, channel: Channel) -> None:
        """Set the channel to the process. Call once, before the first request."""
        self._channel = channel

    async def request(self, call: Call, frame: bytes, seconds: float) -> Answer | None:
        """Send a frame and wait for the answer. Return None if the instance ended instead; ``end`` is then the reason.

        Kill the instance if it does not answer within ``seconds``.
        """
        if self.end is not None:
            call.unsent = True
            return None
        self.calls[call.ticket] = call
        if self._warning and call.invocation is not None:
            self._record(call, self._recorder.now(), NOTE, self._warning.encode())
            self._warning = ""
        if self.watched:
            self._on_work(self)
        waiter: asyncio.Future[Answer | None] = self._loop.create_future()
        call.waiter = waiter
        timer = self._loop.call_later(seconds, self._time_out, call)
        try:
            if self._channel is None or not self._channel.write(frame):
                call.unsent = True
                self.kill(End.EXITED)
            return await waiter
        except asyncio.CancelledError:
            self.kill(End.ABANDONED, call)
            raise
        finally:
            timer.cancel()
            del self.calls[call.ticket]

    def invoke(self, call: Call, invocation: Invocation, seconds: float) -> Awaitable[Answer | None]:
        """Send an invocation and wait for the answer. Return None, or kill the instance, as ``request`` does."""
        self._ticket = (self._ticket + 1) % _TICKETS or 1
        call.begin(self, self._ticket)
        frame = invoke_frame(self._ticket, invocation.request_id, invocation.alias, invocation.payload)
        return self.request(call, frame, seconds)

    def kill(self, end: End, cause: Call | None = None) -> None:
        """Kill the process and the processes that it started.

        ``cause`` is the ``Call`` because of which it is killed, if any. Callers that wait for an answer receive a
        result at once, before the process has exited.
        """
        if self.end is None:
            self._process.kill()
            self._end(end, cause)
        elif self._kill_timer is not None:
            self._process.kill()

    def dismiss(self) -> None:
        """End an idle instance: have it run its pre-stop handler and exit.

        Kill it if that takes longer than allowed.
        """
        if self.end is not None:
            return
        channel = self._channel
        if not self._pre_stop or not self.ready or channel is None or not channel.connected:
            self.kill(End.RETIRED)
            return
        self._kill_timer = self._loop.call_later(self._pre_stop, self._process.kill)
        self._end(End.RETIRED)
        channel.write(stop_frame())

    def _time_out(self, call: Call) -> None:
        if not call.answered:
            self.kill(End.TIMEOUT, call)

    def _end(self, end: End, cause: Call | None = None) -> None:
        self.end = end
        if cause is not None:  # also if its answer has just arrived
            cause.responsible = True
            cause.give_up()
        if self._channel is not None:
            self.unread = self._channel.read_rest() or self.unread
            self._channel.read_output()
        waiting = [call for call in self.calls.values() if not call.answered]
        for call in waiting:
            call.responsible = cause is None and len(waiting) == 1
            call.give_up()
        self._owner.instance_ended(self)

    # --- called by the channel (``ChannelOwner``) and for the process ---

    def received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._receive(frame)
        except FrameError:
            self.kill(End.GARBLED)

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
        if self._channel is not None and (ready or self.concurrency == 1):
            self._channel.read_output()
        call.waiter.set_result(frame)

    def record_output(self, stream: int, text: bytes) -> None:
        """Record raw output in the log of the running request, or of the instance if it may serve several requests."""
        self.heap_exhausted = self.heap_exhausted or (stream == STDERR and HEAP_EXHAUSTED in text)
        own = self.concurrency == 1 or ITSELF in self.calls
        call = next(iter(self.calls.values()), None) if own else None
        self._record(call, self._recorder.now(), stream, text)

    def _record(self, call: Call | None, at: int, stream: int, text: bytes) -> None:
        writer, invocation = (self, None) if call is None or call.invocation is None else (call, call.invocation)
        if writer.log_buffer is None:
            writer.log_buffer = self._recorder.begin(invocation)
        self._recorder.write(writer.log_buffer, self._function, at, stream, text)

    def disconnected(self, *, unread: bool) -> None:
        self.unread = self.unread or unread
        if self._process.alive and self._kill_timer is None:
            # The process is exiting and its status follows, or user code has closed the channel and it is unusable.
            self._kill_timer = self._loop.call_later(_EXIT_TIMEOUT, self._process.kill)
        self._close_if_done()

    def exited(self) -> None:
        """Handle the exit of the process: kill the processes that it started, and end the instance."""
        self._process.kill()
        exited, channel = self._process.reap(), self._channel
        self.exit_status, self.out_of_memory = exited.status, self.out_of_memory or exited.out_of_memory
        self.unread = self.unread or exited.unread or (channel is not None and channel.unsent)
        if channel is not None:
            self.unread = channel.read_rest() or self.unread
        if self.end is None:
            self._end(End.EXITED)
        if channel is not None:
            channel.abort()
        self._close_if_done()

    def _close_if_done(self) -> None:
        channel = self._channel
        if self._process.alive or self.closed.is_set() or (channel is not None and channel.connected):
            return
        if self._kill_timer is not None:
            self._kill_timer.cancel()
        if channel is not None:
            channel.close()
        self.closed.set()
        self._owner.instance_closed(self)
        if self.log_buffer is not None:
            self._recorder.keep(self.key[0], self.log_buffer)
