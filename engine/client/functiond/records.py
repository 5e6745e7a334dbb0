"""Invocations and log lines as the engine describes them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import msgspec
from msgspec import UNSET, Struct, UnsetType

from functiond.errors import ApiError, ClientError
from functiond.steps import LARGEST_REPLY, RetryLimits, delay_after


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


class Record(Struct, frozen=True, kw_only=True):
    """Description of an invocation by the engine.

    ``status`` is WAIT, RUNNING, SUCCESS, FAIL or DISCARD. Payload, result and log are text; they are absent
    (UNSET) if the role of the credentials may not see them.
    """

    request_id: str
    function_urn: str
    status: str
    source: str
    priority: int
    attempt: int
    attempts: list[Attempt]
    accept_time: datetime
    due_time: datetime
    start_time: datetime | None
    end_time: datetime | None
    error_code: int
    error_message: str
    alias: str = ""
    ordering_key: str = ""
    held: bool = False
    paused: bool = False
    progress: Progress | None = None
    payload: str | UnsetType = UNSET
    result: str | UnsetType = UNSET
    log: str | UnsetType = UNSET
    damaged: list[str] = []

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
