"""Instance: one process that serves requests until it is ended, and the calls that it serves.

    starting ──▶ ready, with 0 to ``concurrency`` calls
        └──────────┴──▶ ended ──▶ closed

- ``ended``: the instance was killed or dismissed, or has exited. All callers that waited for an answer have a result,
  and the instance accepts no further requests.
- ``closed``: the process has exited and the channel is closed.

If one request is cancelled or runs too long, its handler is told, and may clean up for ``grace`` seconds. An instance
that serves one request at a time is killed when the handler has answered. If the handler does not answer in time, or
the caller abandons the request, the whole instance is killed, because user code cannot be stopped otherwise. All other
requests of the instance then end, too. Each ``Call`` records whether its request was the cause.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from engine.executors.call import Call, Deadlines, End, Key, State
from engine.executors.logs import LogBuffer, LogRecorder
from engine.executors.process import CLOSED, Channel, InstanceProcess
from engine.logs.lines import NOTE, STDERR
from engine.model import Code, Function, Invocation
from engine.model.limits import LONGEST_NOTE
from engine.model.text import storable
from engine.runtimes.catalog import warning_of
from engine.runtimes.protocol import (
    ITSELF,
    NOTICE_CANCELLED,
    NOTICE_SOFT_TIMEOUT,
    NOTICE_TIMEOUT,
    READY,
    Answer,
    FrameError,
    FrameReader,
    Logged,
    Progress,
    invoke_frame,
    notice_frame,
    stop_frame,
)

_TICKETS = 1 << 32
_EXIT_TIMEOUT = 2.0  #: seconds from the end of the connection to the exit of the process and its status
_NOTICES = {End.CANCELLED: NOTICE_CANCELLED, End.TIMEOUT: NOTICE_TIMEOUT}

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
        Code.INIT_TIMEOUT,
        Code.TIMEOUT,
        Code.OUT_OF_MEMORY,
        Code.DISK_FULL,
    }
)


class InstanceOwner(Protocol):
    """Receiver of an instance's end. ``instance_ended`` is called once, and ``instance_closed`` once after it.

    ``instance_suspect`` is called when the node of a busy instance is silent: the instance is to get no further calls.
    """

    def instance_suspect(self, instance: Instance) -> None: ...

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
        grace: float = 0.0,
    ) -> None:
        """Create an instance whose process starts. ``on_work`` is called with each request while ``watched`` is True.

        A handler that must end has ``grace`` seconds to clean up; 0: the instance is killed at once.

        The launcher calls ``connect``, and has ``exited`` called when the process has exited.
        """
        self.key = key
        self.memory = key[-1]  #: MiB
        self.node = ""  #: name of its node, set by its launcher; empty: this machine
        self.lost = ""  #: why the node was lost, if that ended the instance
        self.concurrency = function.concurrent_num
        self.calls: dict[int, Call] = {}  #: by ticket
        self.end: End | None = None
        self.exit_status: int | None = None
        self.out_of_memory = False
        self.heap_exhausted = False  #: Node.js reported it before its abort, or user code wrote the same
        self.unread = False  #: certainly ended before it read the last frame
        self.last_invoked = -1
        self.ready = False
        self.obsolete = False  #: to be dismissed when its calls are done
        self.recycled = False  #: like ``obsolete``, and serves none of the calls that wait for an instance
        self.served = 0  #: requests that were sent to it
        self.watched = False  #: its memory is measured while it has work
        self.assigned = 0  #: requests, at most ``concurrency``
        self.idle_since = 0.0
        self.closed = asyncio.Event()
        self.log_buffer: LogBuffer | None = None  #: lines that belong to no call
        self._function, self._owner, self._recorder, self._on_work = function, owner, recorder, on_work
        self._process, self._grace = process, grace
        self._pre_stop = function.pre_stop_limit if function.pre_stop_handler else 0
        self._loop = asyncio.get_running_loop()
        self._channel: Channel | None = None
        self._reader = FrameReader()
        self._ticket = ITSELF
        self._warning = warning_of(function.runtime)  #: to be written to the log of the first invocation
        self._kill_timer: asyncio.TimerHandle | None = None
        self._deadlines = Deadlines(self._loop, self.calls, self._time_out)

    @property
    def id(self) -> str:
        return self._process.id

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

    async def request(self, call: Call, frame: bytes, seconds: float, soft_timeout: float = 0.0) -> Answer | None:
        """Send a frame and wait for the answer. Return None if the instance ended instead; ``end`` is then the reason.

        Interrupt the call if it has no answer within ``seconds``. Tell the handler after ``soft_timeout`` seconds, if
        it still runs then; 0: do not tell it.
        """
        if self.end is not None:
            return None
        self.calls[call.ticket] = call
        if self._warning and call.invocation is not None:
            self._record(call, self._recorder.now(), NOTE, self._warning.encode())
            self._warning = ""
        if self.watched:
            self._on_work(self)
        waiter: asyncio.Future[Answer | None] = self._loop.create_future()
        call.send(waiter)
        self._deadlines.set(call, seconds)
        if soft_timeout:
            call.timer = self._loop.call_later(soft_timeout, self._warn, call, soft_timeout)
        self.last_invoked = call.ticket
        try:
            if self._channel is None or not self._channel.write(frame):
                self.unread, self.lost = True, CLOSED if self.node else ""
                self.kill(End.NODE_LOST if self.node else End.EXITED, call)
            return await waiter
        except asyncio.CancelledError:
            self.kill(End.ABANDONED, call)
            raise
        finally:
            if call.timer is not None:
                call.timer.cancel()
            del self.calls[call.ticket]

    def invoke(
        self, call: Call, invocation: Invocation, seconds: float, soft_timeout: float = 0.0, retries: int = 0
    ) -> Awaitable[Answer | None]:
        """Send an invocation and wait for the answer, as ``request`` does. ``retries`` are those of its settings."""
        self._ticket = (self._ticket + 1) % _TICKETS or 1
        call.begin(self, self._ticket)
        attempt, retries = invocation.attempt, retries - invocation.failures
        last = attempt + retries if retries > 0 else attempt
        head = f"{invocation.alias} {invocation.trace} {attempt} {last} {invocation.source} {invocation.parent}"
        frame = invoke_frame(self._ticket, invocation.request_id, head, invocation.payload)
        return self.request(call, frame, seconds, soft_timeout)

    def left_unread(self, call: Call) -> bool:
        """Return whether the instance certainly ended before it read a request, so that no user code ran for it.

        Ask late, because the loop may report the connection reset after the exit.
        """
        if call.state is not State.RESPONSIBLE:
            return call.state is State.UNSENT
        return self.end in (End.EXITED, End.NODE_LOST) and self.unread and self.last_invoked == call.ticket

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

    def interrupt(self, end: End, call: Call) -> None:
        """Tell the handler of a call to end. Kill the instance if the call has no answer after the grace period.

        Kill it at once without a grace period, or while it starts. Later interruptions of a call have no effect.
        """
        channel = self._channel
        if call.stopped is not None or self.end is not None:
            return
        call.stopped = end
        if not self._grace or channel is None or call.ticket == ITSELF:
            self.kill(end, call)
            return
        if call.timer is not None:
            call.timer.cancel()
        call.timer = self._loop.call_later(self._grace, self._end_grace, call)
        self.last_invoked = -1
        if not channel.write(notice_frame(call.ticket, _NOTICES[end])):
            self.kill(end, call)
        self._loop.call_later(self._grace / 8, self._repeat_signal, call)

    def _repeat_signal(self, call: Call) -> None:
        """Have the kernel signal a Python worker again, which may have got the notice just before a system call."""
        if call.pending and self._channel is not None:
            self._channel.write(notice_frame(call.ticket, 0))

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
        if call.pending:
            self.interrupt(End.TIMEOUT, call)

    def _end_grace(self, call: Call) -> None:
        if call.pending and call.stopped is not None:  # else the instance's other requests would end for nothing
            self.kill(call.stopped, call)

    def _warn(self, call: Call, seconds: float) -> None:
        """Tell the handler of a call that its soft timeout is over."""
        channel = self._channel
        if not call.pending or call.stopped is not None or channel is None:
            return
        self.last_invoked = -1
        note = f"still running after the soft timeout of {seconds:g} s"
        self._record(call, self._recorder.now(), NOTE, note.encode())
        channel.write(notice_frame(call.ticket, NOTICE_SOFT_TIMEOUT))

    def _end(self, end: End, cause: Call | None = None) -> None:
        self.end = end
        self._deadlines.cancel()
        if cause is not None:
            cause.lose(State.RESPONSIBLE)
        if self._channel is not None:
            self.unread = self._channel.read_rest() or self.unread
            self._channel.read_output()
        pending = [call for call in self.calls.values() if call.pending]
        for call in pending:
            call.lose(State.RESPONSIBLE if cause is None and len(pending) == 1 else State.COLLATERAL)
        self._owner.instance_ended(self)

    # --- called by the channel (``ChannelOwner``) and for the process ---

    def received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._receive(frame)
        except FrameError:
            self.kill(End.GARBLED)

    def _receive(self, frame: Answer | Logged | Progress) -> None:
        call = self.calls.get(frame.ticket)
        if isinstance(frame, Progress):
            if call is not None:
                call.progress = frame.fraction, storable(frame.note, LONGEST_NOTE)
            return
        if isinstance(frame, Logged):
            self._record(call, frame.at, frame.stream, frame.text)
            return
        ready = frame.kind == READY
        if call is None or not call.pending or ready != (frame.ticket == ITSELF):
            if call is not None and not call.pending and (self.end is not None or call.abandoned):
                return  # too late
            raise FrameError(f"answer to ticket {frame.ticket}, which is not waiting for one")
        if frame.code not in _WORKER_CODES:
            raise FrameError(f"answer with the unknown code {frame.code}")
        if call.stopped is not None:  # an instance for one request ends with it
            if self.concurrency == 1:
                self.kill(call.stopped, call)
            else:
                call.lose(State.RESPONSIBLE)
            return
        if self._channel is not None and (ready or self.concurrency == 1):
            self._channel.read_output()
        call.answer(frame)

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
        self._recorder.write(writer.log_buffer, self._function, self.id, at, stream, text)

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
            self.lost = exited.lost
            self._end(End.NODE_LOST if exited.lost else End.EXITED)
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
