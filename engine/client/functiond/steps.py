"""Steps of an operation, without input and output.

An operation is a generator: it yields the requests to send and the seconds to wait, gets the replies, and returns its
result. ``transport`` runs operations on sockets, for synchronous and asynchronous clients alike.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Generator, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from functiond.errors import ApiError, ClientError, Overloaded, Unavailable, Unreachable, error_class

T = TypeVar("T")
JSON = "application/json"
FIRST_DELAY, LONGEST_DELAY = 0.1, 10.0  #: seconds between attempts, if the engine names none
LONGEST_LIMIT = 1e6  #: seconds; sockets have no much longer time limits
LARGEST_REPLY = 128 << 20  #: bytes; an engine's largest describes an invocation whose event and result are escaped
#: Ends of the names of fields that describe an error, and the names that some services of the engine use for them.
_ERROR_FIELDS = (("code", "code"), ("msg", "message"))
REPLY = 1.0  #: seconds that each attempt has at least, even beyond a time limit


class Request(Struct, frozen=True, kw_only=True):
    method: str
    target: str  #: path and query
    body: bytes = b""
    pieces: Iterable[bytes] | None = None  #: ``body`` in parts, for a caller that shows the progress of an upload
    headers: Mapping[str, str] = {}
    wait: float = 0.0  #: seconds by which the engine may delay its reply
    repeatable: bool = True  #: a second execution changes nothing
    limit: float = LONGEST_LIMIT  #: seconds in which the reply must come


class Reply(Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]  #: names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        """Value of the body; None for an empty one. Raises ValueError if it is no JSON."""
        return json.loads(self.body) if self.body else None


class Sleep(Struct, frozen=True):
    seconds: float


#: Yields what to do, and gets the reply to a request, or the error of one without a reply.
Steps = Generator[Request | Sleep, Reply | Unreachable | None, T]


class RetryLimits(Struct, frozen=True):
    """Bounds of the retries of one request: their number, and the seconds from its first attempt.

    ``Request.wait`` is not part of these seconds.
    """

    retries: int
    timeout: float


def sent(request: Request, limits: RetryLimits) -> Steps[Reply]:
    """Send a request, again after broken connections and refusals with 429 and 503. Return its reply.

    A request that is not repeatable is sent again only if the engine has not begun to execute it. Raises Unreachable or
    ApiError.
    """
    began, attempt = time.monotonic(), 0
    while True:
        left = max(REPLY, began + limits.timeout - time.monotonic())
        outcome = yield replace(request, limit=request.wait + left)
        assert outcome is not None
        if isinstance(outcome, Reply) and outcome.status < 300:
            return outcome
        problem = error_of(outcome) if isinstance(outcome, Reply) else outcome
        delay = delay_after(problem, attempt)
        attempt += 1
        late = time.monotonic() - began + delay > limits.timeout
        if attempt > limits.retries or late or not _may_repeat(request, problem):
            raise problem
        yield Sleep(delay)


def _may_repeat(request: Request, problem: ClientError) -> bool:
    if isinstance(problem, Unreachable):
        return request.repeatable or not problem.sent
    return isinstance(problem, Overloaded) or (request.repeatable and isinstance(problem, Unavailable))


def delay_after(problem: ClientError, attempt: int) -> float:
    """Return the seconds until the next attempt: at least as many as the engine asks for."""
    asked = problem.retry_after if isinstance(problem, ApiError) else None
    if asked is not None:
        return asked + random.uniform(0, FIRST_DELAY)
    return float(min(FIRST_DELAY * 2**attempt, LONGEST_DELAY)) * random.uniform(0.5, 1)


def decoded(reply: Reply, kind: type[T]) -> T:
    """Return the content of a reply. Raises ApiError if it is another, as that of a server that is no engine."""
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except msgspec.DecodeError:
        raise error_of(reply) from None


def retry_after(reply: Reply) -> float | None:
    """Return the seconds after which the engine asks for another attempt, if it names some."""
    asked = reply.headers.get("retry-after", "")
    return float(asked) if asked.isdigit() else None


def error_of(reply: Reply) -> ApiError:
    """Return the error that a reply describes. Replies of proxies, in other forms, are quoted."""
    try:
        told = msgspec.json.decode(reply.body, type=dict[str, Any])
        code, message = (str(told.get(f"error_{short}") or told[name]) for short, name in _ERROR_FIELDS)
    except (msgspec.DecodeError, KeyError):
        told, code = {}, f"HTTP {reply.status}"
        message = f"{reply.body[:200].decode('utf-8', 'replace')} (is this a functiond engine?)"
    return error_class(reply.status, code)(
        reply.status,
        code,
        message,
        request_id=reply.headers.get("x-cff-request-id") or reply.headers.get("x-request-id", ""),
        retry_after=retry_after(reply),
        details=told,
    )
