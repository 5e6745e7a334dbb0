"""Operations on the functions of one project. Each is a generator of steps, which a transport runs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from functiond.codec import decode_result
from functiond.configuration import Configuration
from functiond.errors import (
    BadResult,
    InvocationCancelled,
    InvocationDiscarded,
    InvocationFailed,
    Overloaded,
    ResultTimeout,
    Unavailable,
    Unreachable,
)
from functiond.events import Event
from functiond.log_stream import LogReader
from functiond.records import Record
from functiond.steps import (
    JSON,
    LONGEST_LIMIT,
    Request,
    RetryLimits,
    Sleep,
    Steps,
    decoded,
    delay_after,
    error_of,
    sent,
)

LONGEST_WAIT = 50.0  #: seconds by which one reply is delayed; the engine allows 60
LONGEST_CALL = 100.0  #: seconds of a synchronous call; the engine's default is 90
QUIET = 60.0  #: seconds without a byte of a log; the engine sends one each 15 s
CANCELLED = 4208
UNBOUNDED = 1_000_000  #: retries, where time is the only bound


class ErrorBody(Struct, rename="camel"):
    """Error of a function, as the engine stores it."""

    error_message: str = ""
    error_type: str = ""
    stack_trace: list[str] = []


class RequestId(Struct):
    request_id: str


class Operations:
    def __init__(self, configuration: Configuration) -> None:
        self._base = configuration.functions
        self.limits = RetryLimits(configuration.retries, configuration.timeout)

    def enqueue(self, function: str, event: Event) -> Steps[str]:
        """Queue an invocation and return its request id. The engine has stored the invocation by then."""
        keyed = event.with_key()
        request = self._post(function, "invocations-async", keyed.body(), keyed.headers)
        reply = yield from sent(request, self.limits)
        return decoded(reply, RequestId).request_id

    def call(self, function: str, event: object, kind: Any, timeout: float | None) -> Steps[Any]:
        """Run a function and return its result. A call that may have run is not sent again."""
        limits, wait = self.limits, LONGEST_CALL
        if timeout is not None:
            timeout = min(timeout, LONGEST_LIMIT)
            limits = RetryLimits(limits.retries, min(timeout, limits.timeout))
            wait = timeout - limits.timeout
        request = self._post(function, "invocations", Event(event=event).body(), {}, wait=wait, repeatable=False)
        reply = yield from sent(request, limits)
        headers = {name.lower(): value for name, value in reply.headers.items()}
        request_id, text = headers.get("x-cff-request-id", ""), reply.body.decode("utf-8", "replace")
        if not request_id:
            raise error_of(reply)
        if headers.get("x-is-func-err") == "true":
            code = int(headers.get("x-func-err-code", 0))
            raise _failure(InvocationFailed, request_id, code, "", text)
        return decode_result(text, kind, request_id)

    def record(self, function: str, request_id: str, wait: float = 0.0) -> Steps[Record]:
        return (yield from self._record(function, request_id, wait, self.limits))

    def result(self, function: str, request_id: str, kind: Any, timeout: float | None) -> Steps[Any]:
        """Wait for the end of an invocation and return its result, or raise its failure.

        The wait goes on while the engine restarts. A last request that gets no reply ends it some seconds after
        ``timeout``, see ``REPLY`` and the time to connect.
        """
        heard, failures = time.monotonic(), 0
        until = math.inf if timeout is None else heard + timeout
        while True:
            left = max(0.0, until - time.monotonic())
            wait = min(left, LONGEST_WAIT)
            try:
                limits = RetryLimits(0, min(left - wait, self.limits.timeout))
                record = yield from self._record(function, request_id, wait, limits)
            except (Unreachable, Overloaded, Unavailable) as problem:
                now = time.monotonic()
                if timeout is not None and now >= until:
                    raise ResultTimeout(request_id, timeout, "", str(problem)) from problem
                delay = delay_after(problem, failures)
                if now + delay - heard > LONGEST_WAIT + self.limits.timeout:
                    raise
                failures += 1
                yield Sleep(min(delay, until - now))
                continue
            if record.ended:
                return _result(record, kind)
            heard, failures = time.monotonic(), 0
            if timeout is not None and heard >= until:
                raise ResultTimeout(request_id, timeout, record.status)

    def cancel(self, function: str, request_id: str) -> Steps[None]:
        """Cancel an invocation that waits or runs. Raise BadRequest if it has ended."""
        body = msgspec.json.encode({"request_id": request_id, "type": "force"})
        yield from sent(self._post(function, "cancel", body, {}), self.limits)

    def logs(self, function: str, request_id: str, *, follow: bool) -> tuple[Request, LogReader]:
        accept = "text/event-stream" if follow else "application/x-ndjson"
        target = self._target(function, f"async-invocations/{quote(request_id, safe='')}/logs")
        limit = QUIET if follow else self.limits.timeout
        request = Request(method="GET", target=target, headers={"Accept": accept}, limit=limit)
        limits = RetryLimits(UNBOUNDED, self.limits.timeout) if follow else self.limits
        return request, LogReader(limits, follow=follow)

    def batch(self, function: str, items: Sequence[bytes]) -> Request:
        return self._post(function, "invocations-async/batch", b'{"events":[%b]}' % b",".join(items), {})

    def _record(self, function: str, request_id: str, wait: float, limits: RetryLimits) -> Steps[Record]:
        target = self._target(function, f"async-invocations/{quote(request_id, safe='')}?wait={wait:.3f}")
        reply = yield from sent(Request(method="GET", target=target, wait=wait), limits)
        return decoded(reply, Record)

    def _post(
        self,
        function: str,
        rest: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        wait: float = 0.0,
        repeatable: bool = True,
    ) -> Request:
        given = {"Content-Type": JSON, **headers}
        target = self._target(function, rest)
        return Request(method="POST", target=target, body=body, headers=given, wait=wait, repeatable=repeatable)

    def _target(self, function: str, rest: str) -> str:
        return f"{self._base}/{quote(function, safe=':!')}/{rest}"


def _result(record: Record, kind: Any) -> Any:
    if record.status == "SUCCESS":
        if "result" in record.damaged:
            raise BadResult(f"the result of {record.request_id} is damaged on the engine's disk")
        if isinstance(record.result, UnsetType):
            raise BadResult(f"the role of these credentials may not see the result of {record.request_id}")
        if record.error_message:
            raise BadResult(f"the engine has no result of {record.request_id}: {record.error_message}")
        return decode_result(record.result, kind, record.request_id)
    other = InvocationDiscarded if record.status == "DISCARD" else InvocationFailed
    error = InvocationCancelled if record.error_code == CANCELLED else other
    text = "" if record.result is UNSET else record.result
    raise _failure(error, record.request_id, record.error_code, record.error_message, text)


def _failure(kind: type[InvocationFailed], request_id: str, code: int, message: str, text: str) -> InvocationFailed:
    """Return the error for a failed invocation. ``text`` is its result: an error of user code as JSON, if any."""
    try:
        body = msgspec.json.decode(text, type=ErrorBody)
    except msgspec.DecodeError:
        body = ErrorBody()
    shown = message or body.error_message or text
    return kind(request_id, code, shown, error_type=body.error_type, traceback=body.stack_trace)
