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
_BLANK_LINES = re.compile(rb"(?:\r\n)*")

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
        self.next()

    def next(self) -> None:
        """Prepare for the next request."""
        self.part = _LINE
        self.line: RequestLine | None = None
        self.framing: Framing | None = None  #: None until the head is complete
        self.headers: list[Header] = []  #: names in lower case
        self.body: Body = b""  #: bytes of the body that the caller has not taken
        self._before = b""  # incomplete request line, then the last bytes before those to be read
        self._size = 0  # bytes of the head and of complete trailers
        self._left = 0  # bytes of a declared body that have not arrived
        self._overhead = 0  # bytes of sizes, extensions and trailers since the last byte of a chunk
        self._head_ended = self._message_ended = False
        self._incomplete: bytearray | None = None  # fields of a head that comes in several packets

    def read(self, data: bytes, at: int) -> int:
        """Read ``data`` from the index ``at``, at most to the end of the request. Return the index behind it.

        Raises Refusal if the request is not valid HTTP/1.1 or its head is too large. No further call may follow.
        """
        if self.part is _LINE:
            at = self._read_line(data, at) if self._before else self._read_head(data, at)
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
        """Do the work of ``_read_line`` and ``_feed`` at once for a head that is complete in ``data``.

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
        self._size = end - at
        if end < len(_EMPTY_LINE) or self._size > HEAD_LIMIT:
            return self._read_line(data, at)
        line = self._begin_head(data[at:line_end])
        upgrade = self._parse(_PLAIN_LINE + data[line_end + 2 : end])
        framing = self._end_head(line, upgrade=upgrade)
        if framing.length != CHUNKED and self._size <= _REMEMBERED:
            self._previous = _Head(data[at:end], line, self.headers.copy(), framing)
        return end

    def _read_line(self, data: bytes, at: int) -> int:
        known = len(self._before)
        text, start = (self._before + data[at:], 0) if known else (data, at)
        offset = at - known if known else 0  # of the text in the data
        if text.startswith(b"\r", start) and (blank := _BLANK_LINES.match(text, start)):
            start = blank.end()
        end = text.find(b"\r\n", start)
        self._size = (end if end >= 0 else len(text)) - start
        if self._size > HEAD_LIMIT:
            raise head_too_large()
        if end < 0:
            self._before = text[start:]
            if self._before not in (b"", b"\r"):
                check_line_start(self._before)
            return len(data)
        self._begin_head(text[start:end])
        self._parser.feed_data(_PLAIN_LINE)
        self._before, self._incomplete = b"\r\n", bytearray()
        return end + 2 + offset

    def _begin_head(self, line: bytes) -> RequestLine:
        """Check the request line, and prepare for the fields.

        Each request has a parser of its own: what one request says of the connection does not affect the next.
        """
        self.line = parse_line(line)
        self._parser = httptools.HttpRequestParser(self)
        self.part = _FIELDS
        return self.line

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
        found = (before + data[at : at + _OVERLAP]).find(_EMPTY_LINE) if before else -1
        if found >= 0:
            return at + found + len(_EMPTY_LINE) - len(before)
        found = data.find(_EMPTY_LINE, at)
        if found >= 0:
            return found + len(_EMPTY_LINE)
        self._before = (before + data[at:])[-_OVERLAP:]
        return len(data)

    def _feed(self, piece: memoryview) -> None:
        """Parse bytes of the fields, or of chunks and trailers."""
        if self._incomplete is not None:
            self._check_fields(self._incomplete, piece)
            return
        self._overhead += len(piece)
        self._parse(piece)
        if self._size > HEAD_LIMIT or self._overhead > HEAD_LIMIT:
            raise head_too_large()
        if self._message_ended:
            self.part = _END

    def _check_fields(self, fields: bytearray, piece: memoryview) -> None:
        """Check more fields of an incomplete head, and parse all of them again once it is complete.

        Until then they are kept as one string of bytes: small fields need many times their size once they are parsed.
        """
        self._size += len(piece)
        if self._size > HEAD_LIMIT:
            raise head_too_large()
        fields += piece
        self._parse(piece)
        if self._head_ended and self.line is not None:
            self._parser, self._incomplete = httptools.HttpRequestParser(self), None
            self._end_head(self.line, upgrade=self._parse(_PLAIN_LINE + fields))

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
            if self._incomplete is None:
                self.headers.append((name.lower(), value.rstrip(b" \t")))
        else:  # a trailer: dropped, because the request was authenticated and routed by its headers
            self._size += len(name) + len(value) + len(b": \r\n")

    def on_headers_complete(self) -> None:
        self._head_ended = True

    def on_body(self, body: bytes) -> None:
        self._overhead = 0
        if not self.body:
            self.body = body
        elif isinstance(self.body, bytes):
            self.body = bytearray(self.body) + body
        else:
            self.body += body

    def on_message_complete(self) -> None:
        self._message_ended = True
