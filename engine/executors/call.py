"""Call: a request that waits for an instance or runs in one, and the reasons why an instance ends."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from engine.executors.log_buffer import NOTHING, LogBuffer, Written
from engine.model import Function, Invocation
from engine.runtimes.protocol import ITSELF, Answer

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


class Ended(NamedTuple):
    """End of an attempt: the instance's answer, or one in its place, and the log lines."""

    answer: Answer
    written: Written


class Server(Protocol):
    """Instance that serves calls, as a call knows it."""

    @property
    def id(self) -> str: ...

    @property
    def end(self) -> End | None: ...

    @property
    def unread(self) -> bool:
        """True if the instance certainly ended before it read the last frame."""
        ...

    @property
    def last_invoked(self) -> int:
        """Ticket of the request whose frame was sent last; -1 if another frame followed."""
        ...

    def interrupt(self, end: End, call: Call) -> None:
        """Have the handler of a call end, and the call with it."""
        ...


class Call:
    """Request that waits for an instance or is assigned to one, or the start of an instance (ticket ``ITSELF``).

    ``key`` and ``function`` say which instances can serve the request.
    """

    __slots__ = (
        "assignment", "cancelled", "deadline", "fresh", "function", "grace_timer", "initialised", "instance",
        "interrupted", "invocation", "key", "log_buffer", "progress", "responsible", "soft_timer", "started_by",
        "ticket", "unsent", "waiter",
    )  # fmt: skip

    def __init__(self, key: Key, function: Function, invocation: Invocation | None) -> None:
        self.key, self.function = key, function
        self.invocation = invocation  #: None: start of an instance without a request
        self.instance: Server | None = None
        self.log_buffer: LogBuffer | None = None  #: created with the first line
        self.assignment: asyncio.Future[Any] | None = None  #: of an instance or the call's end, while it waits for one
        self.started_by: Call | None = None  #: start of an instance that began for this request
        self.initialised = 0.0  #: seconds for which the request waited for an instance
        self.fresh = False  #: assigned when its instance became ready
        self.cancelled = False  #: must not run, neither here nor on another instance
        self.ticket = ITSELF
        self.waiter: asyncio.Future[Answer | None] | None = None
        self.deadline = 0.0  #: time of the loop at which the call is over
        self.grace_timer: asyncio.TimerHandle | None = None  #: ends the grace period of its handler
        self.soft_timer: asyncio.TimerHandle | None = None  #: tells its handler that its soft timeout is over
        self.interrupted: End | None = None  #: why its handler was told to end; its answer no longer counts
        self.progress: tuple[float, str] | None = None  #: reported last: fraction and note
        self.responsible = False  #: the instance ended because of this call, or served no other
        self.unsent = False

    def cancel(self) -> bool:
        """Cancel the request: end its wait, or interrupt its handler. Return False if the request has ended already.

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
        instance.interrupt(End.CANCELLED, self)
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

    def begin(self, instance: Server, ticket: int) -> None:
        """Assign the call to an instance, which sends its frame next."""
        self.instance, self.ticket, self.waiter = instance, ticket, None
        self.responsible = self.unsent = False

    @property
    def answered(self) -> bool:
        """True if the request has its answer, or certainly receives none."""
        return self.waiter is not None and self.waiter.done()

    @property
    def abandoned(self) -> bool:
        """True if the caller stopped waiting for the answer. The instance is killed when the caller's task resumes."""
        return self.waiter is not None and self.waiter.cancelled()

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
            instance is not None
            and self.responsible
            and instance.end is End.EXITED
            and instance.unread
            and instance.last_invoked == self.ticket
        )

    def written(self) -> Written:
        """Return the log lines up to now, including those of the start that began for the request."""
        log_buffer = self.log_buffer or (self.started_by.log_buffer if self.started_by is not None else None)
        return NOTHING if log_buffer is None else log_buffer.written()
