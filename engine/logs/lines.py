"""The log of an invocation as it is kept: each line with its time and its stream.

    1764041045123 o text of the line
    │             └ stream: o stdout, e stderr, l logger, n a note of the engine's own
    └ milliseconds since the epoch

A line ends with a newline; its text is as it was written, which need not be UTF-8. The tail in the journal's result
row and the file in ``logs/xx/<request_id>`` have this one format, and so has what a running invocation has written.
Everything in front of the text has the same length in all lines. Lines that do not begin like this are read as text
of stdout without a time: nothing that a disk gives back is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

TAIL = 4096  #: bytes that go into the Outcome; more goes to a file
STREAMS = {1: b"o", 2: b"e", 3: b"l", 4: b"n"}  #: by their numbers in LOG frames; the last is never sent
STDOUT, STDERR, LOGGER, NOTE = STREAMS
NAMES = {b"o": "stdout", b"e": "stderr", b"l": "logger", b"n": "engine"}
_PREFIX = 16  #: bytes


class Line(NamedTuple):
    at: float  #: seconds since the epoch; 0 if unknown
    stream: str
    text: str


def encode(at: int, stream: int, text: bytes) -> bytes:
    """Whole lines as they are kept; ``at`` in milliseconds."""
    prefix = b"%013d %b " % (min(at, 10**13 - 1), STREAMS.get(stream, b"o"))
    if text.endswith(b"\n"):
        text = text[:-1]
    if b"\n" in text:
        text = text.replace(b"\n", b"\n" + prefix)
    return b"%b%b\n" % (prefix, text)


def decode(log: bytes) -> Iterator[Line]:
    for line in log.removesuffix(b"\n").split(b"\n") if log else ():
        if _begins(line):
            yield Line(int(line[:13]) / 1000, NAMES[line[14:15]], line[_PREFIX:].decode("utf-8", "replace"))
        else:
            yield Line(0.0, "stdout", line.decode("utf-8", "replace"))


def plain(log: bytes) -> bytes:
    """The text alone, as it was written."""
    return b"\n".join([(line[_PREFIX:] if _begins(line) else line) for line in log.split(b"\n")])


def last(log: bytes, size: int) -> bytes:
    """The end of it, ``size`` bytes at most; a line that is cut keeps what stands in front of its text."""
    if len(log) <= size:
        return bytes(log)
    cut = len(log) - size + _PREFIX
    begin = log.rfind(b"\n", 0, cut) + 1
    return log[begin : begin + _PREFIX] + log[max(cut, begin + _PREFIX) :]


def framed_log(
    log: bytes, *, request_id: str, version: str, seconds: float, memory_used: int, memory_size: int
) -> bytes:
    """The text of a log between the two lines that the platform puts around it (spec functiongraph_api, 2.2).

    ``memory_used`` is in bytes, ``memory_size`` in MB.
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
