"""The wire between the engine and an instance: requests go in, each under a ticket; answers and log lines come back.

    to the instance     length u32 | kind u8 | body
        SETUP   JSON
        INVOKE  ticket u32 | request_id u8 | alias u8 | request_id alias event       (the u8 are lengths)
        STOP    nothing: run the pre-stop handler, if there is one, and exit
    from the instance   length u32 | kind u8 | ticket u32 | ...
        READY, DONE     code u16 | memory u32 | text u32 | message | result          (to SETUP, to INVOKE)
        LOG             time u64 | stream u8 | text

All big-endian; ``length`` counts what follows it, ``memory`` is the peak in KiB, ``text`` the bytes of the message.
A ticket is unique among the requests that an instance has; 0 stands for the instance itself: its start, its end, and
threads that outlive their request. Several requests may be answered in any order; the lines of a request come before
its answer. A LOG frame is whole lines in UTF-8, the last with or without its newline, at most ``LONGEST_TEXT`` bytes;
longer lines are split. Its time is in milliseconds since the epoch. The programs in ``engine/workers`` speak this
without importing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from struct import Struct as Layout
from typing import Any, NamedTuple

SETUP, INVOKE, STOP = 1, 2, 3  #: kinds of requests
READY, DONE, LOG = 1, 2, 3  #: kinds of frames that come back
ITSELF = 0  #: the ticket of the instance

RESULT_LIMIT = 6 << 20  #: bytes; a larger result is an Outcome of its own (4004)
LONGEST_TEXT = 64 << 10  #: bytes of a LOG frame's text
_LONGEST = RESULT_LIMIT + (1 << 20)  #: the result, a message, and room to spare

_REQUEST = Layout("!IB")
_INVOKE = Layout("!IBIBB")
_ANSWER = Layout("!IBIHII")
_LOG = Layout("!IBIQB")
_LENGTH = 4
_LEAST = _LOG.size - _LENGTH


class FrameError(Exception):
    """The instance sent something that is no frame; it cannot be trusted any more."""


class Answer(NamedTuple):
    kind: int
    code: int
    memory_used: int  #: bytes, at the peak
    message: str
    result: bytes
    ticket: int = ITSELF


class Logged(NamedTuple):
    """Whole lines that a request wrote, or the instance itself."""

    ticket: int
    at: int  #: milliseconds since the epoch
    stream: int
    text: bytes


def setup_frame(setup: Mapping[str, Any]) -> bytes:
    """What an instance needs to know before its first request."""
    body = json.dumps(setup).encode()
    return _REQUEST.pack(1 + len(body), SETUP) + body


def invoke_frame(ticket: int, request_id: str, alias: str, event: bytes) -> bytes:
    head, tail = request_id.encode(), alias.encode()
    length = _INVOKE.size - _LENGTH + len(head) + len(tail) + len(event)
    return b"".join((_INVOKE.pack(length, INVOKE, ticket, len(head), len(tail)), head, tail, event))


def stop_frame() -> bytes:
    return _REQUEST.pack(1, STOP)


def answer_frame(kind: int, ticket: int, code: int, memory_kib: int, message: str, result: bytes) -> bytes:
    """What an instance sends; here for those that are written in this process, and for tests."""
    text = message.encode()
    length = _ANSWER.size - _LENGTH + len(text) + len(result)
    return _ANSWER.pack(length, kind, ticket, code, memory_kib, len(text)) + text + result


def log_frame(ticket: int, at: int, stream: int, text: bytes) -> bytes:
    """Likewise."""
    return _LOG.pack(_LEAST + len(text), LOG, ticket, at, stream) + text


class FrameReader:
    """Puts frames together from the pieces that a socket gives; one whole frame in one piece costs no copy."""

    def __init__(self) -> None:
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Sequence[Answer | Logged]:
        """What is complete now. Raises FrameError."""
        if not self._pieces and _end(data, 0) == len(data):
            return (_decode(data),)
        self._pieces += data
        frames: list[Answer | Logged] = []
        begin = 0
        while (end := _end(self._pieces, begin)) <= len(self._pieces):
            frames.append(_decode(bytes(self._pieces[begin:end])))
            begin = end
        del self._pieces[:begin]
        return frames


def _end(data: bytes | bytearray, begin: int) -> int:
    """Where the frame that begins there ends, which may be beyond the data. Raises FrameError."""
    start = begin + _LENGTH
    if len(data) < start:
        return start
    length = int.from_bytes(data[begin:start], "big")
    if not _LEAST <= length <= _LONGEST:
        raise FrameError(f"a frame of {length} bytes")
    return start + length


def _decode(data: bytes) -> Answer | Logged:
    kind = data[_LENGTH]
    if kind == LOG:
        _, _, ticket, at, stream = _LOG.unpack_from(data)
        return Logged(ticket, at, stream, data[_LOG.size :])
    if kind not in (READY, DONE) or len(data) < _ANSWER.size:
        raise FrameError(f"a frame of kind {kind} with {len(data)} bytes")
    _, _, ticket, code, memory_kib, text = _ANSWER.unpack_from(data)
    end = _ANSWER.size + text
    if end > len(data):
        raise FrameError(f"a message of {text} bytes in a frame of {len(data)}")
    message = data[_ANSWER.size : end].decode(errors="replace") if text else ""
    return Answer(kind, code, memory_kib << 10, message, data[end:], ticket)
