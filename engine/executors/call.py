"""Call: a request that waits for an instance or runs in one, and the reasons why an instance ends."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from enum import Enum, StrEnum, auto
from typing import Any, NamedTuple, Protocol

from engine.executors.logs import NOTHING, LogBuffer, Written
from engine.model import Function, Invocation
from engine.runtimes.protocol import ITSELF, Answer

_SHORTEST_TIMER = 0.001  #: seconds; the loop counts time in milliseconds

Key = tuple[int, str, int, int]  #: function_id, version, revision, memory in MiB; an instance serves one key


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
    NODE_LOST = "node was lost"  #: with everything that ran on it


class Ended(NamedTuple):
    """End of an attempt: the instance's answer, or one in its place, and the log lines."""

    answer: Answer
    written: Written
    lost: str = ""  #: node that was lost with the instance; empty: the attempt ended otherwise


class State(Enum):
    """State of a call on its way to an answer.

        WAITING ──▶ UNSENT ──▶ SENT ──▶ ANSWERED
           ▲          ▲ │       └────▶ RESPONSIBLE, COLLATERAL
           └──────────┴─┴─────────────────────────┘

    The last two are the states of a call whose instance ended, or has given the call up. If the instance certainly
    ended before it read the request, the call takes the next instance.
    """

    UNSENT = auto()  #: no instance has its frame: none is assigned, or the frame is not sent yet
    WAITING = auto()  #: for an instance
    SENT = auto()  #: the frame was passed to the channel
    ANSWERED = auto()
    RESPONSIBLE = auto()  #: without an answer: the instance ended because of this call, or served no other
    COLLATERAL = auto()  #: without an answer: the instance served several calls, and another may be the reason


#: Looked up with each request.
UNSENT, WAITING, SENT, ANSWERED, RESPONSIBLE, COLLATERAL = State


class Server(Protocol):
    """Instance that serves calls, as a call knows it."""

    node: str

    @property
    def id(self) -> str: ...

    def interrupt(self, end: End, call: Call) -> None:
        """Have the handler of a call end, and the call with it."""
        ...


class Call:
    """Request that waits for an instance or is assigned to one, or the start of an instance (ticket ``ITSELF``).

    ``key`` and ``function`` say which instances can serve the request. Only its methods change ``state``.
    """

    __slots__ = (
        "deadline", "function", "future", "initialised", "instance", "invocation", "key", "log_buffer", "progress",
        "started_by", "state", "stopped", "ticket", "timer", "tries",
    )  # fmt: skip

    def __init__(self, key: Key, function: Function, invocation: Invocation | None) -> None:
        self.key, self.function = key, function
        self.invocation = invocation  #: None: start of an instance without a request
        self.state = UNSENT
        self.stopped: End | None = None  #: CANCELLED or TIMEOUT: must end, here and anywhere; an answer does not count
        self.future: asyncio.Future[Any]  #: result of the state WAITING or SENT
        self.instance: Server | None = None
        self.ticket = ITSELF
        self.tries = 0  #: instances that were started for it and became ready
        self.started_by: Call | None = None  #: start of an instance that began for this request
        self.deadline = 0.0  #: time of the loop at which the call is over
        self.timer: asyncio.TimerHandle | None = None  #: end of the soft timeout, or of the grace period of its handler
        self.log_buffer: LogBuffer | None = None  #: created with the first line
        self.initialised = 0.0  #: seconds for which the request waited for an instance
        self.progress: tuple[float, str] | None = None  #: reported last: fraction and note

    # --- waiting for an instance ---

    def wait(self) -> asyncio.Future[Any]:
        """Begin to wait for an instance. Return the future of the instance, or of the end of the call."""
        self.state, self.future = WAITING, asyncio.get_running_loop().create_future()
        return self.future

    def end_wait(self) -> None:
        """End the wait. Keep the lines of the start that began for the request; its later lines are its instance's."""
        self.state = UNSENT
        start, self.started_by = self.started_by, None
        if start is not None:
            self.log_buffer, start.log_buffer, start.invocation = start.log_buffer, None, None

    def enter_start(self, start: Call) -> None:
        """Have the start that begins for the request add its lines to those of the request."""
        self.started_by = start
        start.invocation, start.log_buffer = self.invocation, self.log_buffer

    # --- in an instance ---

    def begin(self, instance: Server, ticket: int) -> None:
        """Assign the call to an instance, which sends its frame next."""
        # A start that was stopped in one instance goes on in the next; a request that was stopped begins nowhere.
        self.state, self.stopped = UNSENT, None
        self.instance, self.ticket = instance, ticket

    def send(self, future: asyncio.Future[Any]) -> None:
        """Begin to wait for the answer."""
        self.state, self.future = SENT, future

    def answer(self, answer: Answer) -> None:
        self.state = ANSWERED
        self.future.set_result(answer)

    def lose(self, state: State) -> None:
        """End the wait for the answer without one, unless it is over."""
        if self.pending:
            self.state = state
            self.future.set_result(None)

    @property
    def pending(self) -> bool:
        """True while a caller waits for the answer, and it may still come."""
        return self.state is SENT and not self.future.cancelled()

    @property
    def abandoned(self) -> bool:
        """True if the caller stopped waiting for the answer. The instance is killed when the caller's task resumes."""
        return self.state is SENT and self.future.cancelled()

    # --- anywhere ---

    def cancel(self) -> bool:
        """Cancel the request: end its wait, or interrupt its handler. Return False if the request has ended already.

        A request can be cancelled until its task resumes, even if an instance has been assigned meanwhile.
        """
        if self.state is WAITING:
            if not self.future.done():
                self.future.set_result(None)
            elif self.future.cancelled() or self.future.exception() or isinstance(self.future.result(), Ended):
                return False
        elif self.state is ANSWERED or self.abandoned:
            return False
        if self.state is SENT and self.instance is not None:
            self.instance.interrupt(End.CANCELLED, self)
        self.stopped = self.stopped or End.CANCELLED
        return True

    async def end_confirmed(self, end: End | None, closed: asyncio.Event) -> None:
        """Wait until nothing of the instance that ended runs any more, because the request may run again after that.

        Return at once if the instance goes on. A cancellation ends the wait.
        """
        if end is None or End.CANCELLED in (self.stopped, end):
            return
        state, waiter = self.state, asyncio.ensure_future(closed.wait())
        try:
            await asyncio.wait([waiter, self.wait()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            self.state = state

    def written(self) -> Written:
        """Return the log lines up to now, including those of the start that began for the request."""
        log_buffer = self.log_buffer or (self.started_by.log_buffer if self.started_by is not None else None)
        return NOTHING if log_buffer is None else log_buffer.written()


class Deadlines:
    """Deadlines of ``calls``, which the instance adds and removes. ``expire`` is called with each that is over.

    All have one timer, because one for each call would be set and cancelled with each request, which takes a
    microsecond or two. It stays set when a call ends, and is set again only when it fires, for the earliest deadline of
    the calls that run then. After the last call it fires once for nothing.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, calls: Mapping[int, Call], expire: Callable[[Call], None]
    ) -> None:
        self._loop, self._calls, self._expire = loop, calls, expire
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0  #: by the clock of the loop

    def set(self, call: Call, seconds: float) -> None:
        """End ``call`` after ``seconds``, unless it is no longer among the calls then."""
        call.deadline = deadline = self._loop.time() + seconds
        if self._timer is None:
            self._set_timer(deadline, seconds)
        elif deadline < self._fires_at:
            self._timer.cancel()
            self._set_timer(deadline, seconds)

    def cancel(self) -> None:
        """End no further calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float, seconds: float) -> None:
        self._fires_at, self._timer = deadline, self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = [call for call in self._calls.values() if call.deadline <= now]
        for call in over:
            call.deadline = math.inf
        earliest = min((call.deadline for call in self._calls.values()), default=math.inf)
        if earliest < math.inf:
            self._set_timer(earliest, max(earliest - now, _SHORTEST_TIMER))
        for call in over:
            self._expire(call)
