"""The wire between the engine and an instance: one request frame goes in, one answer frame comes back.

    to the instance     length u32 | kind u8 | body            SETUP: JSON, INVOKE: u8 u8 request_id alias event
    from the instance   length u32 | kind u8 | code u16 | memory u32 | text u32 | message | result

All big-endian; ``length`` counts what follows it, ``memory`` is the peak in KiB, ``text`` the bytes of the message.
An instance has at most one request, so what follows an answer is never ours: user code wrote to the socket.
The programs in ``engine/workers`` speak this without importing it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from struct import Struct as Layout
from typing import Any, NamedTuple

SETUP, INVOKE = 1, 2  #: kinds of requests
READY, DONE = 1, 2  #: kinds of answers: to SETUP and to INVOKE

RESULT_LIMIT = 6 << 20  #: bytes; a larger result is an Outcome of its own (4004)
_LONGEST = RESULT_LIMIT + (1 << 20)  #: the result, a message, and room to spare

_REQUEST = Layout("!IB")
_INVOKE = Layout("!IBBB")
_ANSWER = Layout("!IBHII")
_LENGTH = 4


class FrameError(Exception):
    """The instance sent something that is no answer; it cannot be trusted any more."""


class Answer(NamedTuple):
    kind: int
    code: int
    memory_used: int  #: bytes, at the peak
    message: str
    result: bytes


def setup_frame(setup: Mapping[str, Any]) -> bytes:
    """What an instance needs to know before its first request."""
    body = json.dumps(setup).encode()
    return _REQUEST.pack(1 + len(body), SETUP) + body


def invoke_frame(request_id: str, alias: str, event: bytes) -> bytes:
    head, tail = request_id.encode(), alias.encode()
    length = 3 + len(head) + len(tail) + len(event)
    return b"".join((_INVOKE.pack(length, INVOKE, len(head), len(tail)), head, tail, event))


def answer_frame(kind: int, code: int, memory_kib: int, message: str, result: bytes) -> bytes:
    """What an instance sends; here for those that are written in this process, and for tests."""
    text = message.encode()
    length = _ANSWER.size - _LENGTH + len(text) + len(result)
    return _ANSWER.pack(length, kind, code, memory_kib, len(text)) + text + result


class AnswerReader:
    """Puts answers together from the pieces that a socket gives; one whole answer in one piece costs no copy."""

    def __init__(self) -> None:
        self._pieces = bytearray()

    def feed(self, data: bytes) -> Answer | None:
        """The answer, once it is complete. Raises FrameError."""
        if self._pieces:
            self._pieces += data
            if not _complete(self._pieces):
                return None
            data = bytes(self._pieces)
            self._pieces.clear()
        elif not _complete(data):
            self._pieces += data
            return None
        return _decode(data)


def _complete(data: bytes | bytearray) -> bool:
    if len(data) < _LENGTH:
        return False
    length = int.from_bytes(data[:_LENGTH], "big")
    if not _ANSWER.size - _LENGTH <= length <= _LONGEST:
        raise FrameError(f"a frame of {length} bytes")
    missing = length + _LENGTH - len(data)
    if missing < 0:
        raise FrameError(f"{-missing} bytes behind a frame")
    return missing == 0


def _decode(data: bytes) -> Answer:
    _, kind, code, memory_kib, text = _ANSWER.unpack_from(data)
    end = _ANSWER.size + text
    if end > len(data):
        raise FrameError(f"a message of {text} bytes in a frame of {len(data)}")
    message = data[_ANSWER.size : end].decode(errors="replace") if text else ""
    return Answer(kind, code, memory_kib << 10, message, data[end:])
