"""Error replies of a gateway, with the error codes of the vendor's APIG."""

from __future__ import annotations

import msgspec

from engine import (
    CallTimedOut,
    FunctiondError,
    FunctionDisabled,
    IdempotencyConflict,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Unavailable,
)

Headers = tuple[tuple[bytes, bytes], ...]


class Problem(Exception):
    def __init__(self, status: int, code: str, message: str, headers: Headers = ()) -> None:
        self.status, self.code, self.message, self.headers = status, code, message, headers
        super().__init__(message)

    def body(self, request_id: str) -> bytes:
        return msgspec.json.encode({"error_code": self.code, "error_msg": self.message, "request_id": request_id})


def no_api() -> Problem:
    message = (
        "The API does not exist or has not been published in the environment: check method, path and Host, and "
        "X-Stage, which names the environment"
    )
    return Problem(404, "APIG.0101", message)


def timed_out(seconds: float) -> Problem:
    return Problem(504, "APIG.0201", f"Backend timeout: the function has not ended after {seconds:g} s and runs on")


def unavailable(message: str) -> Problem:
    return Problem(502, "APIG.0201", f"Backend unavailable: {message}")


def ending() -> Problem:
    return Problem(503, "APIG.0201", "Backend unavailable: the gateway is shutting down", _later(2))


def internal() -> Problem:
    return Problem(500, "APIG.0601", "Internal server error: see the engine's log")


def bad_reply(message: str) -> Problem:
    """Return the error reply for a function that ran, but did not return a valid reply (FunctionGraph: FSS.1202)."""
    return Problem(500, "FSS.1202", message)


def refused(error: FunctiondError) -> Problem:
    """Return the error reply for an error with which the engine refused a request or its event."""
    match error:
        case PayloadTooLarge():
            return Problem(413, "APIG.0201", f"Request entity too large: {error}")
        case Overloaded() | FunctionDisabled():
            return Problem(429, "APIG.0308", str(error), _later(error.retry_after))
        case Unavailable():
            return Problem(503, "APIG.0201", f"Backend unavailable: {error}", _later(error.retry_after))
        case CallTimedOut():
            return Problem(504, "APIG.0201", f"Backend timeout: {error}")
        case IdempotencyConflict():
            return Problem(409, "APIG.0201", f"API request error: {error}")
        case NotFound():
            return unavailable(str(error))
    return Problem(400, "APIG.0201", f"API request error: {error}")


def _later(seconds: float) -> Headers:
    return ((b"retry-after", b"%d" % max(1, round(seconds))),)
