"""Invocations and log lines as the engine describes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from functiond.errors import (
    ApiError,
    BadResult,
    ClientError,
    InvocationCancelled,
    InvocationDiscarded,
    InvocationFailed,
)
from functiond.events import decode_result
from functiond.steps import LARGEST_REPLY, RetryLimits, delay_after

CANCELLED = 4208


class ErrorBody(Struct, rename="camel"):
    """Error of a function, as the engine stores it."""

    error_message: str = ""
    error_type: str = ""
    stack_trace: list[str] = []


class Progress(Struct, frozen=True, kw_only=True):
    """Progress that a handler has reported last."""

    fraction: float  #: 0 to 1
    note: str


class Attempt(Struct, frozen=True, kw_only=True):
    attempt: int
    start_time: datetime
    end_time: datetime
    error_code: int
    error_message: str


class Outcome(Struct, frozen=True, kw_only=True):
    """State of an invocation, and what it has returned or why it has failed."""

    request_id: str
    status: str
    error_code: int = 0
    error_message: str = ""
    result: str | UnsetType = UNSET
    damaged: list[str] = []

    def value(self, kind: Any) -> Any:
        """Return what the function returned, as an object of the type ``kind``. Raises its failure, or BadResult."""
        if self.status == "SUCCESS":
            if "result" in self.damaged:
                raise BadResult(f"the result of {self.request_id} is damaged on the engine's disk")
            if isinstance(self.result, UnsetType):
                raise BadResult(f"the role of these credentials may not see the result of {self.request_id}")
            if self.error_message:
                raise BadResult(f"the engine has no result of {self.request_id}: {self.error_message}")
            return decode_result(self.result, kind, self.request_id)
        other = InvocationDiscarded if self.status == "DISCARD" else InvocationFailed
        error = InvocationCancelled if self.error_code == CANCELLED else other
        text = "" if self.result is UNSET else self.result
        raise failure(error, self.request_id, self.error_code, self.error_message, text)


def failure(kind: type[InvocationFailed], request_id: str, code: int, message: str, text: str) -> InvocationFailed:
    """Return the error for a failed invocation. ``text`` is its result: an error of user code as JSON, if any."""
    try:
        body = msgspec.json.decode(text, type=ErrorBody)
    except msgspec.DecodeError:
        body = ErrorBody()
    shown = message or body.error_message or text
    return kind(request_id, code, shown, error_type=body.error_type, traceback=body.stack_trace)


class MemberOutcome(Outcome, frozen=True, kw_only=True):
    place: int
    function: str


class Member(NamedTuple):
    """Member of a group. ``result`` is what its function returned as JSON, ``error`` the message of its failure."""

    place: int
    request_id: str
    function: str
    state: str  #: WAIT, RUNNING, SUCCESS, FAIL or DISCARD
    result: Any
    error: str

    @classmethod
    def of(cls, member: MemberOutcome) -> Member:
        error = member.error_message or ("its result is damaged on the engine's disk" if member.damaged else "")
        kept = member.status == "SUCCESS" and not error and isinstance(member.result, str)
        result = decode_result(str(member.result), Any, member.request_id) if kept else None
        return cls(member.place, member.request_id, member.function, member.status, result, error)


class GroupRecord(Struct, frozen=True, kw_only=True):
    """Description of a group by the engine.

    ``state`` is FILLING, RUNNING, SUCCESS, FAIL, CANCELLED or ABANDONED, ``total`` the number of members.
    """

    group_id: str
    state: str
    require: str
    total: int | None  #: None: not all are stored yet
    stored: int
    done: int
    failed: int
    create_time: datetime
    end_time: datetime | None
    message: str = ""
    request_id: str = ""  #: of the last continuation; empty without one


class Record(Outcome, frozen=True, kw_only=True):
    """Description of an invocation by the engine.

    ``status`` is WAIT, RUNNING, SUCCESS, FAIL or DISCARD. Payload, result and log are text; they are absent
    (UNSET) if the role of the credentials may not see them.
    """

    function_urn: str
    source: str
    priority: int
    attempt: int
    attempts: list[Attempt]
    accept_time: datetime
    due_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    alias: str = ""
    ordering_key: str = ""
    held: bool = False
    paused: bool = False
    progress: Progress | None = None
    payload: str | UnsetType = UNSET
    log: str | UnsetType = UNSET
    parent: str = ""  #: request id of the invocation that queued it
    children: int = 0  #: number of those that it has queued
    group: dict[str, Any] | None = None  #: ``id`` of its group, and its ``place`` there
    waits_for: GroupRecord | None = None  #: group whose end it awaits

    @property
    def ended(self) -> bool:
        return self.end_time is not None


class LogLine(Struct, frozen=True, kw_only=True):
    """Line that a function has written. ``stream`` is stdout, stderr, logger, engine for notes, or error."""

    time: datetime | None
    stream: str
    text: str


class Dropped(Struct):
    lines: int


class LogReader:
    """Reader of the pieces of a reply, in the order of their arrival, and of the replies after broken connections.

    Each of these begins with the first line of the newest attempt, so lines that were read before are left out.
    """

    def __init__(self, limits: RetryLimits, *, follow: bool) -> None:
        self._limits, self._tries, self._began = limits, 0, 0.0
        self._rest, self._event = b"", "line"
        self._seen: Counter[int] = Counter()  #: hashes of lines
        self._again: Counter[int] = Counter()  #: those that this reply may repeat
        self.complete = not follow  #: the end of a reply is the end of the log

    def read(self, piece: bytes) -> Iterator[LogLine]:
        """Yield the new log lines that ``piece`` completes."""
        self._tries = 0
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LARGEST_REPLY:
            raise ApiError(200, "HTTP 200", "a line of the log has no end: is this a functiond engine?")
        for text in lines:
            for line in self._read_line(text):
                name = hash(line)
                if self._again[name]:
                    self._again[name] -= 1
                else:
                    self._seen[name] += 1
                    yield line

    def resume(self, problem: ClientError) -> float:
        """Return the seconds until the next request. Raise ``problem`` if there were too many without a reply."""
        now = time.monotonic()
        self._began = self._began if self._tries else now
        delay = delay_after(problem, self._tries)
        self._tries += 1
        if self._tries > self._limits.retries or now + delay - self._began > self._limits.timeout:
            raise problem
        self._rest, self._event, self._again = b"", "line", self._seen.copy()
        return delay

    def _read_line(self, line: bytes) -> Iterator[LogLine]:
        if line.startswith(b"{"):
            yield msgspec.json.decode(line, type=LogLine)
            return
        field, _, value = line.partition(b": ")
        if field == b"event":
            self._event = value.decode()
            self.complete |= self._event == "end"
        elif field == b"data" and self._event == "line":
            yield msgspec.json.decode(value, type=LogLine)
        elif field == b"data" and self._event == "dropped":
            count = msgspec.json.decode(value, type=Dropped).lines
            yield LogLine(time=None, stream="engine", text=f"{count} lines were dropped: written too fast")
