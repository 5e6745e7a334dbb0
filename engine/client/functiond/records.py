"""Invocations and log lines as the engine describes them."""

from __future__ import annotations

from datetime import datetime

from msgspec import UNSET, Struct, UnsetType


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
