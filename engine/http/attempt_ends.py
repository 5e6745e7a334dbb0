"""Ends of attempts in the live log of a function: state, duration, error and result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from msgspec import UNSET, Struct, UnsetType

from engine.logs.feed import LINE
from engine.logs.lines import Line
from engine.model import Function, Invocation, Outcome, State

LONGEST = 4096  #: characters of a message, and bytes of a result

#: Calls a listener with each attempt that ends, until the block ends.
FollowAttempts = Callable[[Callable[[Function, Invocation, Outcome], object]], AbstractContextManager[None]]


class AttemptItem(Struct, frozen=True, kw_only=True):
    """End of an attempt, as replies describe it."""

    request_id: str
    attempt: int
    mode: str
    source: str
    status: str  #: SUCCESS or FAIL
    seconds: float
    error_code: int
    error_message: str
    result: str | UnsetType = UNSET  #: begin of it; absent if the role of the caller may not see it


class AttemptEnd(Struct, frozen=True, kw_only=True):
    """End of an attempt, which queues of log lines hold like a batch of lines."""

    item: AttemptItem
    lines: tuple[Line, ...] = ()

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def size(self) -> int:
        return LINE + len(self.item.error_message) + len(self.item.result or "")


def attempt_end(invocation: Invocation, outcome: Outcome, *, with_result: bool) -> AttemptEnd:
    """Return the end of an attempt for a client. Long messages and results are cut."""
    item = AttemptItem(
        request_id=invocation.request_id,
        attempt=invocation.attempt,
        mode=invocation.mode,
        source=invocation.source,
        status=State.SUCCESS if outcome.ok else State.FAIL,
        seconds=outcome.ended_at - outcome.started_at,
        error_code=outcome.code,
        error_message=outcome.message[:LONGEST],
        result=outcome.result[:LONGEST].decode("utf-8", "replace") if with_result else UNSET,
    )
    return AttemptEnd(item=item)
