"""Errors that the client raises, as a tree of classes.

ClientError
├── BadConfiguration              URL, credentials or another parameter of a client
├── BadArgument                   event, option or argument of a function that cannot be sent
├── ClientClosed                  request of a client that is closed, as at the end of an embedded engine
├── Unreachable                   no reply from the engine; ``sent``: it may have received the request
├── ApiError                      error reply of the engine, with ``status``, ``code`` and ``request_id``
│   ├── BadRequest  Unauthorized  Forbidden
│   ├── NotFound
│   │   └── UnknownFunction
│   ├── Conflict  TooLarge
│   ├── Overloaded                429: no room, or the function is disabled
│   ├── EngineFailed              500: fault of the engine
│   ├── Unavailable               503: the engine is starting, stopping, or cannot store anything
│   └── CallTimedOut              504: a synchronous call has not ended in time
├── BatchError                    events of ``enqueue_many`` that were refused
├── InvocationFailed              the function failed; ``code``, ``message``, ``error_type``, ``traceback``
│   ├── InvocationCancelled
│   └── InvocationDiscarded       it expired, its maximum age passed before it ran, or its function was deleted
├── ResultTimeout                 ``result(timeout)`` has waited so long; the invocation continues
└── BadResult                     result that has another type, is not kept, or may not be seen
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """Error of the client, of the engine, or of a function."""


class BadConfiguration(ClientError):
    """Parameter of a client or of a function that cannot be used."""


class BadArgument(ClientError, TypeError):
    """Event or option that cannot be sent; argument that is missing, unknown, or not of the type of its annotation."""


class ClientClosed(ClientError):
    def __init__(self, url: str) -> None:
        reason = "by `close()`, the end of its `with` block, or that of its embedded engine"
        super().__init__(f"the client of {url} is closed, {reason}: make another client")


class Unreachable(ClientError):
    """Request without a reply. If ``sent``, the engine may have received and executed it."""

    def __init__(self, url: str, problem: str, *, sent: bool) -> None:
        self.sent, self.problem = sent, problem
        hint = "it may have received the request" if sent else "start one with `functiond serve`, or give another url"
        super().__init__(f"no reply from an engine at {url} ({problem}): {hint}")


class ApiError(ClientError):
    """Error reply of the engine. ``code`` is a code of the API, such as FSS.1051, or the status if there is none.

    ``details`` has all fields of the reply.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        request_id: str = "",
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.status, self.code, self.message = status, code, message
        self.request_id, self.retry_after, self.details = request_id, retry_after, details or {}
        super().__init__(f"{code} {message}")


class BadRequest(ApiError):
    pass


class Unauthorized(ApiError):
    pass


class Forbidden(ApiError):
    pass


class NotFound(ApiError):
    pass


class UnknownFunction(NotFound):
    pass


class Conflict(ApiError):
    pass


class TooLarge(ApiError):
    pass


class Overloaded(ApiError):
    """Refusal for want of room. ``retry_after`` has the seconds after which a repetition may succeed."""


class EngineFailed(ApiError):
    pass


class Unavailable(ApiError):
    pass


class CallTimedOut(ApiError):
    pass


class BatchError(ClientError):
    """Refused events of a batch: ``errors`` by position. ``handles`` has None in their places."""

    def __init__(self, handles: Sequence[Any], errors: Mapping[int, ClientError]) -> None:
        self.handles, self.errors = list(handles), dict(errors)
        first = min(self.errors)
        super().__init__(f"{len(errors)} of {len(self.handles)} events were refused; event {first}: {errors[first]}")


class InvocationFailed(ClientError):
    """End of an invocation without success. ``traceback`` has the lines of the function's own frames."""

    def __init__(
        self, request_id: str, code: int, message: str, *, error_type: str = "", traceback: Sequence[str] = ()
    ) -> None:
        self.request_id, self.code, self.message = request_id, code, message
        self.error_type, self.traceback = error_type, "\n".join(traceback)
        frames = f"\n{self.traceback}" if self.traceback else ""
        super().__init__(f"{code} {message}{frames}")


class InvocationCancelled(InvocationFailed):
    pass


class InvocationDiscarded(InvocationFailed):
    pass


class ResultTimeout(ClientError, TimeoutError):
    """End of a wait. ``status`` is the state of the invocation, empty if the engine has not told it."""

    def __init__(self, request_id: str, seconds: float, status: str, problem: str = "") -> None:
        self.request_id, self.status = request_id, status
        state = f"is {status} after {seconds:g} s; it continues"
        unknown = f"is in an unknown state after {seconds:g} s ({problem})"
        super().__init__(f"invocation {request_id} {state if status else unknown}: ask again later")


class BadResult(ClientError):
    pass


_BY_STATUS: Mapping[int, type[ApiError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    429: Overloaded,
    500: EngineFailed,
    502: Unavailable,  # of a proxy whose engine is down
    503: Unavailable,
    504: CallTimedOut,
}
_BY_CODE: Mapping[str, type[ApiError]] = {"FSS.1051": UnknownFunction}


def error_class(status: int, code: str) -> type[ApiError]:
    """Return the class of the error with this code, else of the status."""
    other = ApiError if status >= 500 else BadRequest
    return _BY_CODE.get(code) or _BY_STATUS.get(status, other)
