"""Codes, messages and error bodies (FunctionGraph's) of the answers of an instance that runs a ``bootstrap``.

Standard library only, Python 3.9 syntax.
"""

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OK, ENTRY, USER, TOO_LARGE, INIT_RAISED, INIT_FAILED = 0, 4001, 4002, 4004, 4009, 4201
LONGEST_DELAY = 1e9  # seconds; the engine has a limit of its own
PREFIX = {
    ENTRY: "function entry exception, error: ",
    USER: "function invocation exception, error: ",
    INIT_RAISED: "function initialization exception, error: ",
    INIT_FAILED: "function initialization exception, error: ",
}


class CannotStart(Exception):
    """Instance that cannot be started. The text of the exception explains what to do."""

    def __init__(self, code: int, text: str) -> None:
        Exception.__init__(self, PREFIX[code] + text)
        self.code = code


def error_body(text: str, kind: str, trace: "Sequence[str]" = (), said: "dict[str, object] | None" = None) -> bytes:
    body = {"errorMessage": text, "errorType": kind, "stackTrace": list(trace), **(said or {})}
    return json.dumps(body, indent=4).encode()


def describe_error(body: bytes, kind: str) -> "tuple[str, bytes]":
    """Return the error that the user's runtime sent as one line, and as an error body in FunctionGraph's format.

    ``kind`` is the error type to use if the error contains none.
    """
    try:
        error = json.loads(body)
    except (ValueError, RecursionError):
        error = body.decode("utf-8", "replace")
    if not isinstance(error, dict):
        error = {"errorMessage": error if isinstance(error, str) else json.dumps(error)}
    text, kind = str(error.get("errorMessage") or ""), str(error.get("errorType") or kind or "Error")
    trace = error.get("stackTrace") or error.get("trace") or []
    trace = [str(line) for line in trace] if isinstance(trace, list) else [str(trace)]
    return f"{kind}: {text}" if text else kind, error_body(text, kind, trace, wishes(error))


def wishes(error: "dict[str, object]") -> "dict[str, object]":
    """Return what an error says about a retry: its ``retryAfter`` in seconds, and a false ``retryable``."""
    after, found = error.get("retryAfter"), dict[str, object]()
    if isinstance(after, (int, float)) and not isinstance(after, bool) and 0 <= after <= LONGEST_DELAY:
        found["retryAfter"] = float(after)
    if error.get("retryable") is False:
        found["retryable"] = False
    return found
