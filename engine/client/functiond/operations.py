"""Operations on the functions of one project. Each is a generator of steps, which a transport runs."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct, UnsetType

from functiond.configuration import Configuration
from functiond.errors import (
    ApiError,
    BadArgument,
    BadResult,
    ClientError,
    InvocationCancelled,
    InvocationDiscarded,
    InvocationFailed,
    Overloaded,
    ResultTimeout,
    TooLarge,
    Unavailable,
    Unreachable,
    error_class,
)
from functiond.events import Event, Item, batches, decode_result
from functiond.records import LogReader, Record
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
    retry_after,
    sent,
)

LONGEST_WAIT = 50.0  #: seconds by which one reply is delayed; the engine allows 60
LONGEST_CALL = 100.0  #: seconds of a synchronous call; the engine's default is 90
QUIET = 60.0  #: seconds without a byte of a log; the engine sends one each 15 s
CANCELLED = 4208
RETRY_DELAY = 1.0  #: seconds until events without room are sent again, if the engine does not ask for more
UNBOUNDED = 1_000_000  #: retries, where time is the only bound


class ErrorBody(Struct, rename="camel"):
    """Error of a function, as the engine stores it."""

    error_message: str = ""
    error_type: str = ""
    stack_trace: list[str] = []


class RequestId(Struct):
    request_id: str


class ItemResult(Struct):
    request_id: str = ""
    error_code: str = ""
    error_msg: str = ""


class Sent(Struct, frozen=True):
    """Request ids of accepted events, and errors of refused ones, by position."""

    ids: dict[int, str]
    errors: dict[int, ClientError]


class Operations:
    def __init__(self, configuration: Configuration) -> None:
        self._base = configuration.functions
        self._limits = RetryLimits(configuration.retries, configuration.timeout)

    def enqueue(self, function: str, event: Event) -> Steps[str]:
        """Queue an invocation and return its request id. The engine has stored the invocation by then."""
        keyed = event.with_key()
        request = self._post(function, "invocations-async", keyed.body(), keyed.headers)
        reply = yield from sent(request, self._limits)
        return decoded(reply, RequestId).request_id

    def enqueue_many(self, function: str, events: Iterable[object]) -> Steps[Sent]:
        """Queue invocations for all events, in their order.

        Those without room are sent again, within the client's limits. An event that is refused for another reason does
        not stop the others. If the connection breaks, all that are left get the error. Raises Unreachable or ApiError
        if no event was accepted because of the whole request.
        """
        if isinstance(events, Mapping | str | bytes):
            raise BadArgument(f"events is a {type(events).__name__}: give a list of events")
        keyed = [(event if isinstance(event, Event) else Event(event=event)).with_key() for event in events]
        waiting: Sequence[Item] = [Item(position, event.item()) for position, event in enumerate(keyed)]
        outcome, limits = Sent({}, {}), self._limits
        accepted = tries = 0
        began = time.monotonic()
        while True:
            asked = yield from self._send(function, waiting, outcome)
            delay = max(RETRY_DELAY, asked) * random.uniform(1, 1.5)
            waiting = [item for item in waiting if _may_repeat(outcome.errors.get(item.position))]
            if len(outcome.ids) > accepted:
                accepted, tries, began = len(outcome.ids), 0, time.monotonic()
            tries += 1
            if not waiting or tries > limits.retries or time.monotonic() - began + delay > limits.timeout:
                return outcome
            yield Sleep(delay)

    def _send(self, function: str, items: Sequence[Item], outcome: Sent) -> Steps[float]:
        """Send items once, until there is no room or no connection. All items that are left get this error.

        Return the seconds after which the engine asks for another attempt.
        """
        done, asked = 0, 0.0
        for batch in batches(items):
            done += len(batch)
            try:
                body = b'{"events":[%b]}' % b",".join(item.body for item in batch)
                reply = yield from sent(self._post(function, "invocations-async/batch", body, {}), self._limits)
                asked = retry_after(reply) or 0.0
                _keep(batch, outcome, decoded(reply, dict[str, Any]))
            except ApiError as error:
                whole = "results" not in error.details and not isinstance(error, TooLarge)
                if whole and not outcome.ids:  # such as an unknown function
                    raise
                asked = error.retry_after or 0.0
                _keep(batch, outcome, error.details, error)
            except Unreachable as error:
                if not outcome.ids:
                    raise
                outcome.errors.update((item.position, error) for item in [*batch, *items[done:]])
                break
            refusals = [outcome.errors.get(item.position) for item in batch]
            full = next(filter(_may_repeat, refusals), None)
            if full:
                outcome.errors.update((item.position, full) for item in items[done:])
                break
        return asked

    def call(self, function: str, event: object, kind: Any, timeout: float | None) -> Steps[Any]:
        """Run a function and return its result. A call that may have run is not sent again."""
        limits, wait = self._limits, LONGEST_CALL
        if timeout is not None:
            timeout = min(timeout, LONGEST_LIMIT)
            limits = RetryLimits(limits.retries, min(timeout, limits.timeout))
            wait = timeout - limits.timeout
        request = self._post(function, "invocations", Event(event=event).body(), {}, wait=wait, repeatable=False)
        reply = yield from sent(request, limits)
        request_id, text = reply.headers.get("x-cff-request-id", ""), reply.body.decode("utf-8", "replace")
        if not request_id:
            raise error_of(reply)
        if reply.headers.get("x-is-func-err") == "true":
            code = int(reply.headers.get("x-func-err-code", 0))
            raise _failure(InvocationFailed, request_id, code, "", text)
        return decode_result(text, kind, request_id)

    def record(
        self, function: str, request_id: str, wait: float = 0.0, limits: RetryLimits | None = None
    ) -> Steps[Record]:
        """Return what the engine tells about an invocation, after ``wait`` seconds or at its end."""
        target = self._target(function, f"async-invocations/{quote(request_id, safe='')}?wait={wait:.3f}")
        reply = yield from sent(Request(method="GET", target=target, wait=wait), limits or self._limits)
        return decoded(reply, Record)

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
                limits = RetryLimits(0, min(left - wait, self._limits.timeout))
                record = yield from self.record(function, request_id, wait, limits)
            except (Unreachable, Overloaded, Unavailable) as problem:
                now = time.monotonic()
                if timeout is not None and now >= until:
                    raise ResultTimeout(request_id, timeout, "", str(problem)) from problem
                delay = delay_after(problem, failures)
                if now + delay - heard > LONGEST_WAIT + self._limits.timeout:
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
        yield from sent(self._post(function, "cancel", body, {}), self._limits)

    def logs(self, function: str, request_id: str, *, follow: bool) -> tuple[Request, LogReader]:
        accept = "text/event-stream" if follow else "application/x-ndjson"
        target = self._target(function, f"async-invocations/{quote(request_id, safe='')}/logs")
        limit = QUIET if follow else self._limits.timeout
        request = Request(method="GET", target=target, headers={"Accept": accept}, limit=limit)
        limits = RetryLimits(UNBOUNDED, self._limits.timeout) if follow else self._limits
        return request, LogReader(limits, follow=follow)

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


def _keep(batch: Sequence[Item], outcome: Sent, reply: Mapping[str, Any], refusal: ApiError | None = None) -> None:
    """Keep what a reply says about each event of a batch. ``refusal`` is the error of the whole batch, if any."""
    results = msgspec.convert(reply.get("results", []), list[ItemResult])
    if refusal and len(results) != len(batch):
        outcome.errors.update((item.position, refusal) for item in batch)
        return
    for item, result in zip(batch, results, strict=True):
        outcome.errors.pop(item.position, None)
        if result.request_id:
            outcome.ids[item.position] = result.request_id
        else:
            status = _status(result.error_code)
            kind = error_class(status, result.error_code)
            outcome.errors[item.position] = kind(status, result.error_code, result.error_msg)


def _status(code: str) -> int:
    """Return the status of an error code: codes such as FSS.0429 contain it."""
    general = re.fullmatch(r"FSS\.0(\d{3})", code)
    return int(general[1]) if general else 400


def _may_repeat(error: ClientError | None) -> bool:
    return isinstance(error, Overloaded | Unavailable)
