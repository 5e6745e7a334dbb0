"""Failures of user code, and the answers that report them: FunctionGraph's codes, messages and error bodies.

Standard library only, Python 3.9 syntax.
"""

import errno
import json
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

OK, ENTRY, USER, TOO_LARGE, BAD_RESULT, INIT_RAISED, NO_MEMORY, DISK_FULL = 0, 4001, 4002, 4004, 4007, 4009, 4205, 4207
PREFIX = {
    ENTRY: "function entry exception, error: ",
    USER: "function invocation exception, error: ",
    BAD_RESULT: "function result is invalid, error: ",
    INIT_RAISED: "function initialization exception, error: ",
    NO_MEMORY: "function memory exceeded, error: ",
    DISK_FULL: "function disk usage exceeded, error: ",
}
LONGEST_MESSAGE, LONGEST_LINE, FRAMES = 4096, 2000, 50
LONGEST_DELAY = 1e9  # seconds; the engine has a limit of its own
WORKERS = os.path.dirname(os.path.abspath(__file__)) + os.sep
LIBRARY = os.path.dirname(os.__file__) + os.sep
INSTALLED = tuple(LIBRARY + name + os.sep for name in ("site-packages", "dist-packages"))


class Failure(Exception):
    """Exception that becomes an answer with an error code; ``result`` is the error body as JSON text."""

    def __init__(self, code: int, text: str, result: "bytes | None" = None) -> None:
        Exception.__init__(self, text)
        self.code, self.text = code, text
        self.result = error_body(text, "FunctionError", []) if result is None else result


def failure(code: int, error: BaseException) -> Failure:
    """Return the ``Failure`` that reports an exception of user code."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        code = NO_MEMORY
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = DISK_FULL
    body: bytes | None
    try:
        line, body = describe(error)
    except BaseException as second:
        line = f"{type(error).__name__}, and describing it raised {type(second).__name__}"
        body = None
    return Failure(code, PREFIX[code] + line, body)


def describe(error: BaseException) -> "tuple[str, bytes]":
    """Return an exception as one line, and as an error body in FunctionGraph's format.

    The body also has what the exception says about a retry.
    """
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{kind}: {text}" if text else kind, error_body(text, kind, user_frames(error.__traceback__), wishes(error))


def wishes(error: BaseException) -> "dict[str, object]":
    """Return what an exception says about a retry: its ``retry_after`` in seconds, and a false ``retryable``."""
    try:
        after, found = getattr(error, "retry_after", None), dict[str, object]()
        if isinstance(after, (int, float)) and not isinstance(after, bool) and 0 <= after <= LONGEST_DELAY:
            found["retryAfter"] = float(after)
        if getattr(error, "retryable", None) is False:
            found["retryable"] = False
    except BaseException:  # attributes of user code may raise
        return {}
    return found


def user_frames(trace: "TracebackType | None") -> "list[str]":
    """Return the lines of the traceback from the first frame in user code on, without our own frames.

    Library frames before it only show how user code was called.
    """
    import traceback

    own = getattr(sys.modules.get("functiond"), "__file__", None) or WORKERS
    ours = (WORKERS, "<frozen importlib", own[: -len("__init__.py")] if own.endswith("__init__.py") else own)
    lines, reached = [], False
    for frame, line in zip(traceback.extract_tb(trace), traceback.format_tb(trace)):
        file = frame.filename
        if file.startswith(ours):
            continue
        reached = reached or not is_library(file)
        if reached:
            lines.append(line.rstrip("\n")[:LONGEST_LINE])
    return lines[-FRAMES:]


def is_library(file: str) -> bool:
    return file.startswith((WORKERS, LIBRARY, "<frozen")) and not file.startswith(INSTALLED)


def error_body(message: str, kind: str, trace: "list[str]", said: "dict[str, object] | None" = None) -> bytes:
    body = {"errorMessage": message[:LONGEST_MESSAGE], "errorType": kind, "stackTrace": trace, **(said or {})}
    return json.dumps(body, indent=4).encode()


def warn(what: str, error: BaseException) -> None:
    """Write an error to the log. Used for errors that belong to no request."""
    try:
        sys.stderr.write(f"{what}: {describe(error)[0]}\n")
    except BaseException:
        return  # closed by user code
