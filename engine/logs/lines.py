"""Stored format of an invocation's log: each line with its time and its stream.

    1764041045123 o text of the line
    │             └ stream: o stdout, e stderr, l logger, n a note of the engine itself, x the error of a failed run
    └ milliseconds since the epoch

A line ends with a newline. Its text is stored as it was written and need not be UTF-8. The prefix before the text has
the same length in all lines. A line without such a prefix is read as stdout without a time, so that every file can be
read. The same format is used in the journal (end of the log), in the file ``logs/xx/<request_id>`` (long logs), and in
memory while an invocation runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import NamedTuple

TAIL = 4096  #: bytes of the log's end that are stored in the outcome; a longer log is also stored in a file
#: By number in a worker's LOG frames. Those from 4 on are used by the engine only.
STREAMS = {1: b"o", 2: b"e", 3: b"l", 4: b"n", 5: b"x"}
STDOUT, STDERR, LOGGER, NOTE, ERROR = STREAMS
NAMES = {b"o": "stdout", b"e": "stderr", b"l": "logger", b"n": "engine", b"x": "error"}
LATEST = 10**13 - 1  #: milliseconds that a prefix can hold
PREFIX = 16  #: bytes before the text of a line


class Line(NamedTuple):
    at: float  #: seconds since the epoch; 0 if unknown
    stream: str
    text: str


def encode(at: int, stream: int, text: bytes) -> bytes:
    """Return the lines of a text in the stored format. ``at`` is their time in milliseconds since the epoch."""
    prefix = b"%013d %b " % (min(at, LATEST), STREAMS.get(stream, b"o"))
    if text.endswith(b"\n"):
        text = text[:-1]
    if b"\n" in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return b"%b%b\n" % (prefix, text)


def decode(log: bytes) -> Iterator[Line]:
    """Yield the lines of a log in the stored format."""
    for whole in BytesIO(log):  # one line at a time: a list of all lines would hold the event loop
        line = whole.removesuffix(b"\n")
        if _begins(line):
            yield Line(int(line[:13]) / 1000, NAMES[line[14:15]], line[PREFIX:].decode("utf-8", "replace"))
        else:
            yield Line(0.0, "stdout", line.decode("utf-8", "replace"))


def plain(log: bytes) -> bytes:
    """Return the text of a stored log without the prefix (time and stream) of each line."""
    return b"\n".join([(line[PREFIX:] if _begins(line) else line) for line in log.split(b"\n")])


def last(log: bytes, size: int) -> bytes:
    """Return the last lines of a stored log, at most ``size`` bytes. If the first line is cut, it keeps its prefix."""
    if len(log) <= size:
        return bytes(log)
    cut = len(log) - size + PREFIX
    begin = log.rfind(b"\n", 0, cut) + 1
    return log[begin : begin + PREFIX] + log[max(cut, begin + PREFIX) :]


def framed_log(
    log: bytes, *, request_id: str, version: str, seconds: float, memory_used: int, memory_size: int
) -> bytes:
    """Return the text of a log between a start line and a finish line, in FunctionGraph's documented log format.

    ``version`` is the function's version, ``seconds`` the duration of the run, ``memory_used`` bytes, and
    ``memory_size`` MiB.
    """
    milliseconds = seconds * 1000
    start = f"Start invoke request '{request_id}', version: {version}\n"
    finish = (
        f"Finish invoke request '{request_id}', duration: {milliseconds:.3f}ms, "
        f"billing duration: {-int(-milliseconds // 1)}ms, memory used: {memory_used / (1 << 20):.3f}MB, "
        f"billing memory: {memory_size}MB\n"
    )
    return start.encode() + plain(log) + finish.encode()


def _begins(line: bytes) -> bool:
    return line[:13].isdigit() and line[13:14] == b" " == line[15:16] and line[14:15] in NAMES
