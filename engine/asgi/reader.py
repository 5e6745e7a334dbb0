"""Reader of the requests of one connection, with httptools.

The parser checks the syntax of headers and chunks strictly, and finds the ends of chunked bodies. The reader checks
request lines, and counts the bytes of bodies of a declared length.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import httptools
from msgspec import Struct

from engine.asgi.heads import (
    CHUNKED,
    HEAD_LIMIT,
    Framing,
    RequestLine,
    check_headers,
    check_line_start,
    head_too_large,
    not_http,
    parse_line,
)
from engine.asgi.responses import Header

#: Request line that the parser gets in place of the real one, which it would check laxly.
_PLAIN_LINE = b"POST / HTTP/1.1\r\n"
_EMPTY_LINE = b"\r\n\r\n"  #: ends heads and chunked bodies, and may be anywhere in a body
_OVERLAP = len(_EMPTY_LINE) - 1  #: bytes of an empty line that may be in an earlier packet
_REMEMBERED = 1024  #: bytes of a head that a connection remembers
_BLANK_LINES = re.compile(rb"(?:\r\n)*+")
_LINE_CHECKED = 1024  #: bytes of an incomplete request line that are checked; clients of other protocols send others

Body = bytes | bytearray


class Part(Enum):
    """Part of a request to which the next bytes belong."""

    LINE = auto()  #: request line, and blank lines before it
    FIELDS = auto()
    DECLARED = auto()  #: body of a declared length
    CHUNKS = auto()  #: chunks and trailers
    END = auto()  #: none: the request is complete


_LINE, _FIELDS, _DECLARED, _CHUNKS, _END = Part


class _Head(Struct, frozen=True):
    """Complete head, as it was sent and as it was read. Its body has a declared length, which may be 0."""

    text: bytes
    line: RequestLine
    headers: list[Header]
    framing: Framing


class RequestReader:
    """Read one request after another. The caller takes ``body`` after each ``read``, and calls ``next`` between two."""

    def __init__(self) -> None:
        self._previous: _Head | None = None
        self.incomplete = bytearray()  #: bytes of a head that comes in several packets
        self.next()

    def next(self) -> None:
        """Prepare for the next request."""
        self.part = _LINE
        self.line: RequestLine | None = None
        self.framing: Framing | None = None  #: None until the head is complete
        self.headers: list[Header] = []  #: names in lower case
        self.body: Body = b""  #: bytes of the body that the caller has not taken
        self._before = b""  # last bytes of chunks before those to be read
        self._size = 0  # bytes of blank lines, the head and complete trailers
        self._left = 0  # bytes of a declared body that have not arrived
        self._chunk = 0  # bytes of the current chunk that have arrived
        self._overhead = 0  # bytes of a chunked body beside its chunks and what encloses each at least
        self._message_ended = False

    def read(self, data: bytes, at: int) -> int:
        """Read ``data`` from the index ``at``, at most to the end of the request. Return the index behind it.

        Raises Refusal if the request is not valid HTTP/1.1 or its head is too large. No further call may follow.
        """
        if self.part is _LINE:
            at = self._read_head(data, at) if self._size == 0 else self._gather(data, at)
        end = len(data)
        while at < end and self.part is not _END:
            if self.part is _DECLARED:
                stop = self._count_declared(at, end)
                self.on_body(data if stop - at == end else data[at:stop])
            else:
                stop = self._find_empty_line(data, at)
                self._feed(memoryview(data)[at:stop])
            at = stop
        return at

    def skip(self, data: bytes, at: int) -> int:
        """Drop bytes of the body. Otherwise the same as ``read``."""
        if self.part is _DECLARED:
            return self._count_declared(at, len(data))
        at = self.read(data, at)
        self.body = b""
        return at

    def _read_head(self, data: bytes, at: int) -> int:
        """Read a head that is complete in ``data``. Any other is left to ``_gather``.

        Many clients send the same head again and again. Such a head is not parsed again.
        """
        previous = self._previous
        if previous is not None and data.startswith(previous.text, at):
            self.line, self.framing, self.headers = previous.line, previous.framing, previous.headers.copy()
            self._left = previous.framing.length
            self.part = _DECLARED if self._left else _END
            return at + len(previous.text)
        line_end = data.find(b"\r\n", at)
        end = data.find(_EMPTY_LINE, line_end) + len(_EMPTY_LINE) if line_end > at else 0
        if end < len(_EMPTY_LINE) or end - at > HEAD_LIMIT:
            return self._gather(data, at)
        self._size = end - at
        self._parse_head(data[at:end])
        return end

    def _gather(self, data: bytes, at: int) -> int:
        """Add bytes to an incomplete head, and parse it once it is complete.

        Until then it is kept as one string of bytes: small fields need many times their size once they are parsed.
        """
        head, known = self.incomplete, len(self.incomplete)
        head += data[at : at + HEAD_LIMIT + 1 - self._size]
        taken = len(head) - known
        self._size += taken
        if self.line is None:
            self._gather_line(known)
        end = head.find(_EMPTY_LINE, max(known - _OVERLAP, 0)) + len(_EMPTY_LINE)
        behind = len(head) - end if end >= len(_EMPTY_LINE) else 0
        self._size -= behind
        if self._size > HEAD_LIMIT:
            raise head_too_large()
        if end >= len(_EMPTY_LINE):
            self.incomplete = bytearray()
            self._parse_head(bytes(head[:end]))
        elif head.count(b"\n", known) != head.count(b"\r\n", max(known - 1, 0)):
            raise not_http(b"a line of the head ends without CR")
        return at + taken - behind

    def _gather_line(self, known: int) -> None:
        """Drop blank lines before the request line, of which ``known`` bytes were there before, and check it."""
        head = self.incomplete
        if blank := _BLANK_LINES.match(head):
            del head[: blank.end()]
        line_end = head.find(b"\r\n", max(known - 1, 0))
        if line_end >= 0:
            self.line = parse_line(bytes(head[:line_end]))
        elif known < _LINE_CHECKED and (start := bytes(head[:_LINE_CHECKED])) not in (b"", b"\r"):
            check_line_start(start)

    def _parse_head(self, head: bytes) -> None:
        """Parse a complete head.

        Each request has a parser of its own: what one request says of the connection does not affect the next.
        """
        line_end = head.find(b"\r\n")
        self.line = parse_line(head[:line_end])
        self._parser, self.part = httptools.HttpRequestParser(self), _FIELDS
        upgrade = self._parse(_PLAIN_LINE + head[line_end + 2 :])
        framing = self._end_head(self.line, upgrade=upgrade)
        if framing.length != CHUNKED and len(head) <= _REMEMBERED:
            self._previous = _Head(head, self.line, self.headers.copy(), framing)

    def _count_declared(self, at: int, end: int) -> int:
        """Count the bytes of a declared body between two indexes. Return the index where the body ends for now."""
        stop = min(end, at + self._left)
        self._left -= stop - at
        if not self._left:
            self.part = _END
        return stop

    def _find_empty_line(self, data: bytes, at: int) -> int:
        """Return the index behind the next empty line; the length of ``data`` if there is none."""
        before, self._before = self._before, b""
        index = (before + data[at : at + _OVERLAP]).find(_EMPTY_LINE) if before else -1
        if index >= 0:
            return at + index + len(_EMPTY_LINE) - len(before)
        index = data.find(_EMPTY_LINE, at)
        if index >= 0:
            return index + len(_EMPTY_LINE)
        self._before = (before + data[at:])[-_OVERLAP:]
        return len(data)

    def _feed(self, piece: memoryview) -> None:
        """Parse bytes of chunks and trailers."""
        self._overhead += len(piece)
        self._parse(piece)
        if self._size > HEAD_LIMIT or self._overhead - self._chunk > HEAD_LIMIT:
            raise head_too_large()
        if self._message_ended:
            self.part = _END

    def _parse(self, piece: bytes | memoryview) -> bool:
        """Give ``piece`` to the parser. Return whether it stopped at the end of a head to switch protocols."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserError as error:
            raise not_http(b"cannot parse the request (%b)" % str(error).encode()) from None
        return False

    def _end_head(self, line: RequestLine, *, upgrade: bool) -> Framing:
        """Prepare for the body. If the headers ask to switch protocols, the parser would read none: replace it."""
        framing = self.framing = check_headers(line, self.headers)
        length = self._left = framing.length
        self.part = _DECLARED if length > 0 else _CHUNKS if length == CHUNKED else _END
        if upgrade and length == CHUNKED:
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(_PLAIN_LINE + b"transfer-encoding: chunked" + _EMPTY_LINE)
        self._message_ended = False
        return framing

    # Callbacks of the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.part is _FIELDS:
            self.headers.append((name.lower(), value.rstrip(b" \t")))
        else:  # a trailer: dropped, because the request was authenticated and routed by its headers
            self._size += len(name) + len(value) + len(b": \r\n")

    def on_body(self, body: bytes) -> None:
        self._chunk += len(body)
        if not self.body:
            self.body = body
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body) + body
        else:
            self.body += body

    def on_chunk_complete(self) -> None:
        self._overhead -= self._chunk + (self._chunk.bit_length() + 3) // 4 + len(_EMPTY_LINE)
        self._chunk = 0

    def on_message_complete(self) -> None:
        self._message_ended = True
