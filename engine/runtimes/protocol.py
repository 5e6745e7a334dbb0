"""Protocol between the engine and an instance. Answers and log lines contain the ticket of their request.

    to the instance     length u32 | kind u8 | body
        SETUP   JSON
        INVOKE  ticket u32 | request_id u8 | alias u8 | request_id alias event       (the u8 are lengths)
                ``alias`` has these, with a space between each two: name of the alias; trace context (header
                ``traceparent``); numbers of the attempt, and of the last one that the settings allow; source; request
                id of the parent. Any may be empty.
        STOP    no body: run the pre-stop handler, if there is one, and exit
        NOTICE  ticket u32 | reason u8: the request was cancelled (1), has run too long (2), or has reached its
                                        soft timeout (3); or nothing new, but the kernel signals it again (0)
    from the instance   length u32 | kind u8 | ticket u32 | ...
        READY, DONE     code u16 | memory u32 | text u32 | message | result          (reply to SETUP, to INVOKE)
        LOG             time u64 | stream u8 | text
        PROGRESS        millionths u32 | note

Numbers are big-endian. ``length`` is the number of bytes after it, ``memory`` the highest memory use of the instance
in KiB, ``text`` the number of bytes of the message. A ticket is unique among the unanswered requests of an instance.
Ticket 0 stands for the instance itself: its start, its end, and threads that outlive their request. Answers may
arrive in any order; the lines of a request precede its answer. A LOG frame contains whole lines in UTF-8, the last
with or without its newline, at most ``LONGEST_TEXT`` bytes; longer lines are split. Its time is in milliseconds since
the epoch. The programs in ``engine/workers`` implement the protocol without importing this module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from struct import Struct as Layout
from typing import Any, NamedTuple

SETUP, INVOKE, STOP, NOTICE = 1, 2, 3, 4  #: kinds of requests
READY, DONE, LOG, PROGRESS = 1, 2, 3, 4  #: kinds of frames from the instance
ITSELF = 0  #: ticket of the instance itself
NOTICE_CANCELLED, NOTICE_TIMEOUT, NOTICE_SOFT_TIMEOUT = 1, 2, 3  #: reasons of notices

RESULT_LIMIT = 6 << 20  #: bytes; a larger result fails with code 4004
LONGEST_TEXT = 64 << 10  #: bytes of a LOG frame's text
_LONGEST_FRAME = RESULT_LIMIT + (1 << 20)  #: bytes: the result, a message, and a margin

_REQUEST = Layout("!IB")
_INVOKE = Layout("!IBIBB")
_NOTICE = Layout("!IBIB")
_ANSWER = Layout("!IBIHII")
_LOG = Layout("!IBIQB")
_PROGRESS = Layout("!IBII")
_LENGTH = 4
_SHORTEST_FRAME = _PROGRESS.size - _LENGTH
_MILLION = 1_000_000


class FrameError(Exception):
    """Malformed frame from an instance.

    The rest of the connection's data cannot be interpreted, so the instance must end.
    """


class Answer(NamedTuple):
    kind: int
    code: int
    memory_used: int  #: bytes, at the peak
    message: str
    result: bytes
    ticket: int = ITSELF


class Progress(NamedTuple):
    """Progress that a request has reported."""

    ticket: int
    fraction: float  #: 0 to 1
    note: str


class Logged(NamedTuple):
    """Whole log lines that a request, or the instance itself, has written."""

    ticket: int
    at: int  #: milliseconds since the epoch
    stream: int
    text: bytes


def setup_frame(setup: Mapping[str, Any]) -> bytes:
    """Return the frame with the configuration, which an instance receives before its first request."""
    body = json.dumps(setup).encode()
    return _REQUEST.pack(1 + len(body), SETUP) + body


def invoke_frame(ticket: int, request_id: str, alias: str, event: bytes) -> bytes:
    head, tail = request_id.encode(), alias.encode()
    length = _INVOKE.size - _LENGTH + len(head) + len(tail) + len(event)
    return b"".join((_INVOKE.pack(length, INVOKE, ticket, len(head), len(tail)), head, tail, event))


def stop_frame() -> bytes:
    return _REQUEST.pack(1, STOP)


def notice_frame(ticket: int, reason: int) -> bytes:
    return _NOTICE.pack(_NOTICE.size - _LENGTH, NOTICE, ticket, reason)


class FrameReader:
    """Parser of the frames that an instance sends. Receives the socket's data in pieces of any size.

    Data that consists of one whole frame is parsed without copying it into a buffer.
    """

    def __init__(self) -> None:
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Sequence[Answer | Logged | Progress]:
        """Add data, and return the frames that are complete now. Raises FrameError if a frame is malformed."""
        if not self._pieces and _end(data, 0) == len(data):
            return (_decode(data),)
        self._pieces += data
        frames: list[Answer | Logged | Progress] = []
        begin = 0
        while (end := _end(self._pieces, begin)) <= len(self._pieces):
            frames.append(_decode(bytes(self._pieces[begin:end])))
            begin = end
        del self._pieces[:begin]
        return frames


def _end(data: bytes | bytearray, begin: int) -> int:
    """Return the index of the end of the frame that starts at ``begin``; it may be beyond the data received so far.

    Raises FrameError if the length in the frame is not allowed.
    """
    start = begin + _LENGTH
    if len(data) < start:
        return start
    length = int.from_bytes(data[begin:start], "big")
    if not _SHORTEST_FRAME <= length <= _LONGEST_FRAME:
        raise FrameError(f"frame of {length} bytes")
    return start + length


def _decode(data: bytes) -> Answer | Logged | Progress:
    kind = data[_LENGTH]
    if kind == LOG and len(data) >= _LOG.size:
        _, _, ticket, at, stream = _LOG.unpack_from(data)
        return Logged(ticket, at, stream, data[_LOG.size :])
    if kind == PROGRESS:
        _, _, ticket, millionths = _PROGRESS.unpack_from(data)
        return Progress(ticket, min(1.0, millionths / _MILLION), data[_PROGRESS.size :].decode(errors="replace"))
    if kind not in (READY, DONE) or len(data) < _ANSWER.size:
        raise FrameError(f"frame of kind {kind} with {len(data)} bytes")
    _, _, ticket, code, memory_kib, text = _ANSWER.unpack_from(data)
    end = _ANSWER.size + text
    if end > len(data):
        raise FrameError(f"message of {text} bytes in a frame of {len(data)} bytes")
    message = data[_ANSWER.size : end].decode(errors="replace") if text else ""
    return Answer(kind, code, memory_kib << 10, message, data[end:], ticket)
