"""Requests for one project, and waits for the ends of invocations, as generators of steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from typing import TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from functiond.configuration import Configuration
from functiond.errors import Overloaded, ResultTimeout, Unavailable, Unreachable
from functiond.records import Outcome, Record
from functiond.steps import JSON, Request, RetryLimits, Sleep, Steps, decoded, delay_after, sent

LONGEST_WAIT = 50.0  #: seconds by which one reply is delayed; the engine allows 60
WINDOW = 1_000  #: invocations of which one request awaits the ends
TURN = 1.0  #: seconds of a request after which others are awaited, if there are more
T = TypeVar("T")


class Ended(Struct):
    results: list[Outcome]
    unknown: list[str] = []


class Awaited:
    """Invocation whose ``outcome`` is set at its end, until it is read. One without a status: the id is unknown."""

    request_id: str
    outcome: Outcome | None = None


A = TypeVar("A", bound=Awaited)


class Deadline:
    """End of a wait of ``timeout`` seconds. None: there is no end."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout, self.time = timeout, math.inf if timeout is None else time.monotonic() + timeout

    def check(self, request_id: str, status: str, problem: Exception | None = None) -> None:
        """Raise ResultTimeout if the wait is over."""
        if self.timeout is not None and time.monotonic() >= self.time:
            raise ResultTimeout(request_id, self.timeout, status, str(problem)) from problem


class Waits:
    def __init__(self, configuration: Configuration) -> None:
        self._base = configuration.base
        self._limits = RetryLimits(configuration.retries, configuration.timeout)

    def record(self, function: str, request_id: str) -> Steps[Record]:
        """Return what the engine tells about an invocation."""
        return decoded((yield from sent(self._ask(function, request_id, 0.0), self._limits)), Record)

    def outcome(self, function: str, request_id: str, deadline: Deadline) -> Steps[Outcome]:
        """Wait for the end of an invocation.

        The wait goes on while the engine restarts. A last request that gets no reply ends it some seconds after
        the deadline, see ``REPLY`` and the time to connect.
        """
        while True:
            record = yield from self._awaited(partial(self._ask, function, request_id), Record, request_id, deadline)
            if record.ended:
                return record
            deadline.check(request_id, record.status)

    def ended(self, handles: Iterable[A], deadline: Deadline, *, ordered: bool) -> Iterator[Steps[list[A]]]:
        """Yield steps until all invocations have ended. Each returns handles that have their outcomes then.

        The handles have their order if ``ordered``, else that of the ends. Of many, one window is awaited while some of
        its invocations end, then the next.
        """
        left = list(handles)
        while left:
            yield self._ended(left, deadline, ordered=ordered)

    def _ended(self, left: list[A], deadline: Deadline, *, ordered: bool) -> Steps[list[A]]:
        window, longest = left[:WINDOW], LONGEST_WAIT if ordered or len(left) <= WINDOW else TURN
        ended = _take_ended(window, ordered=ordered)
        if not ended:
            missing = list(dict.fromkeys(handle.request_id for handle in window if handle.outcome is None))
            body: dict[str, object] = {"request_ids": missing, "count": len(missing) if ordered else 1}

            def ask(wait: float) -> Request:
                return self._post("async-invocations/results", {**body, "wait": wait}, wait=wait)

            reply = yield from self._awaited(ask, Ended, missing[0], deadline, longest)
            found = {request_id: Outcome(request_id=request_id, status="") for request_id in reply.unknown}
            found |= {outcome.request_id: outcome for outcome in reply.results}
            if not found:
                deadline.check(missing[0], "WAIT or RUNNING")
            for handle in window:
                handle.outcome = handle.outcome or found.get(handle.request_id)
            ended = _take_ended(window, ordered=ordered)
        others = left[WINDOW:]
        left[:] = [*window, *others] if ended or ordered else [*others, *window]
        return ended

    def _awaited(
        self,
        ask: Callable[[float], Request],
        kind: type[T],
        request_id: str,
        deadline: Deadline,
        longest: float = LONGEST_WAIT,
    ) -> Steps[T]:
        """Return the reply to a request, which the engine delays. The request is repeated while the engine restarts."""
        heard, failures = time.monotonic(), 0
        while True:
            left = max(0.0, deadline.time - time.monotonic())
            wait = min(left, longest)
            try:
                limits = RetryLimits(0, min(left - wait, self._limits.timeout))
                return decoded((yield from sent(ask(wait), limits)), kind)
            except (Unreachable, Overloaded, Unavailable) as problem:
                deadline.check(request_id, "", problem)
                now, delay = time.monotonic(), delay_after(problem, failures)
                if now + delay - heard > LONGEST_WAIT + self._limits.timeout:
                    raise
                failures += 1
                yield Sleep(min(delay, deadline.time - now))

    def _ask(self, function: str, request_id: str, wait: float) -> Request:
        return self._get(f"{invocation_path(function, request_id)}?wait={wait:.3f}", wait=wait)

    def _get(self, path: str, *, wait: float = 0.0) -> Request:
        return Request(method="GET", target=f"{self._base}/{path}", wait=wait)

    def _post(
        self,
        path: str,
        content: bytes | Mapping[str, object],
        headers: Mapping[str, str] = {},
        *,
        wait: float = 0.0,
        repeatable: bool = True,
    ) -> Request:
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        given, target = {"Content-Type": JSON, **headers}, f"{self._base}/{path}"
        return Request(method="POST", target=target, body=body, headers=given, wait=wait, repeatable=repeatable)


def path_of(function: str, rest: str) -> str:
    return f"functions/{quote(function, safe=':!')}/{rest}"


def invocation_path(function: str, request_id: str) -> str:
    return path_of(function, f"async-invocations/{quote(request_id, safe='')}")


def _take_ended(window: list[A], *, ordered: bool) -> list[A]:
    """Remove and return the handles with outcomes: if ``ordered``, those before the first without one."""
    if not ordered:
        window.sort(key=lambda handle: handle.outcome is None)
    ended = list(takewhile(lambda handle: handle.outcome, window))
    del window[: len(ended)]
    return ended
