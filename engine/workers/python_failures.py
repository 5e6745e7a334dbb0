"""Failures of user code, and the answers that report them: FunctionGraph's codes, messages and error bodies.

Standard library only, Python 3.9 syntax.
"""

import errno
import os
import sys

from worker_frames import DISK_FULL, LONGEST_MESSAGE, NO_MEMORY, PREFIX, error_body, wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

LONGEST_LINE, FRAMES = 2000, 50
WORKERS = os.path.dirname(os.path.abspath(__file__)) + os.sep
LIBRARY = os.path.dirname(os.__file__) + os.sep
SANDBOXED = "/home/snuser/runtime/"  # where a sandbox has the workers
UNSEEN = "; functions see their own files and the system's only: ask for a folder of the host (executor.folders)"
INSTALLED = tuple(LIBRARY + name + os.sep for name in ("site-packages", "dist-packages"))


class Failure(Exception):
    """Exception that becomes an answer with an error code; ``result`` is the error body as JSON text."""

    def __init__(self, code: int, text: str, result: "bytes | None" = None) -> None:
        Exception.__init__(self, text)
        self.code, self.text = code, text
        self.result = error_body(text[:LONGEST_MESSAGE], "FunctionError") if result is None else result


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


def hint(error: BaseException) -> str:
    """Return what to add to an error about a path that the sandbox does not show; empty: nothing."""
    codes = (errno.ENOENT, errno.EACCES, errno.EROFS)
    if not isinstance(error, OSError) or error.errno not in codes or WORKERS != SANDBOXED:
        return ""
    path = os.path.realpath(str(error.filename or WORKERS))
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return UNSEEN if os.stat(path).st_dev == os.stat("/").st_dev else ""


def describe(error: BaseException) -> "tuple[str, bytes]":
    """Return an exception as one line, and as an error body in FunctionGraph's format.

    The body also has what the exception says about a retry, and the names of its classes below Exception.
    """
    kind = type(error).__name__
    try:
        text = str(error) + hint(error)
    except Exception:
        text = ""
    bases = [base for base in type(error).__mro__ if issubclass(base, BaseException)]
    classes = [base.__name__ for base in bases if base not in (Exception, BaseException)]
    try:
        said = wishes(getattr(error, "retry_after", None), getattr(error, "retryable", None), classes)
    except BaseException:  # attributes of user code may raise
        said = wishes(None, None, classes)
    body = error_body(text[:LONGEST_MESSAGE], kind, user_frames(error.__traceback__), said)
    return f"{kind}: {text}" if text else kind, body


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


def warn(what: str, error: BaseException) -> None:
    """Write an error to the log. Used for errors that belong to no request."""
    try:
        sys.stderr.write(f"{what}: {describe(error)[0]}\n")
    except BaseException:
        return  # closed by user code
