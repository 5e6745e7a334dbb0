"""What can go wrong in user code, as the answer that tells of it (spec triggers_runtime 4.1).

Standard library only, Python 3.9 syntax.
"""

import errno
import json
import os
import sys

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
OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
LIBRARY = os.path.dirname(os.__file__) + os.sep
INSTALLED = tuple(LIBRARY + name + os.sep for name in ("site-packages", "dist-packages"))


class Failure(Exception):
    """An answer with a code; ``result`` is the error as JSON text."""

    def __init__(self, code, text, result=None):
        Exception.__init__(self, text)
        self.code, self.text = code, text
        self.result = error_body(text, "FunctionError", []) if result is None else result


def failure(code, error):
    """What went wrong in user code, as an answer."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, MemoryError):
        code = NO_MEMORY
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        code = DISK_FULL
    try:
        line, body = describe(error)
    except BaseException as second:
        line = "%s, and describing it raised %s" % (type(error).__name__, type(second).__name__)
        body = None
    return Failure(code, PREFIX[code] + line, body)


def describe(error):
    """An exception as one line, and as the documented error body."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:
        text = ""
    return "%s: %s" % (kind, text) if text else kind, error_body(text, kind, users_frames(error.__traceback__))


def users_frames(trace):
    """From the first frame of the user's on: what of the library led there is the way by which it was called."""
    import traceback

    lines, reached = [], False
    for frame, line in zip(traceback.extract_tb(trace), traceback.format_tb(trace)):
        file = frame.filename
        reached = reached or not is_library(file)
        if reached and not file.startswith((OURS, "<frozen importlib")):
            lines.append(line.rstrip("\n")[:LONGEST_LINE])
    return lines[-FRAMES:]


def is_library(file):
    return file.startswith((OURS, LIBRARY, "<frozen")) and not file.startswith(INSTALLED)


def error_body(message, kind, trace):
    body = {"errorMessage": message[:LONGEST_MESSAGE], "errorType": kind, "stackTrace": trace}
    return json.dumps(body, indent=4).encode()


def warn(what, error):
    """In the log, where no request is there to be told."""
    try:
        sys.stderr.write("%s: %s\n" % (what, describe(error)[0]))
    except BaseException:
        pass  # user code has closed it
