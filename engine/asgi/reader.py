"""Reader of the requests of one connection, with httptools.

The parser checks the syntax of headers and chunks strictly, and finds the ends of bodies. The reader checks request
lines, and never gives the parser bytes behind the end of a request.
"""

from __future__ import annotations

import re
from enum import Enum, auto

import httptools

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
_COPIED = 4096  #: bytes of a packet from which a view of them is faster than a copy
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


class RequestReader:
    """Read one request after another. The caller takes ``body`` after each ``read``, and calls ``next`` between two."""

    def __init__(self) -> None:
        self._parser, self._parser_ended = httptools.HttpRequestParser(self), False
        self.next()

    def next(self) -> None:
        """Prepare for the next request."""
        if self._parser_ended:
            self._parser, self._parser_ended = httptools.HttpRequestParser(self), False
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

    def read(self, data: bytes, at: int) -> int:
        """Read ``data`` from the index ``at``, at most to the end of the request. Return the index behind it.

        Raises Refusal if the request is not valid HTTP/1.1 or its head is too large. No further call may follow.
        """
        if self.part is _LINE:
            at = self._read_line(data, at) if self._before else self._read_head(data, at)
        end = len(data)
        while at < end and self.part is not _END:
            if self.part is _DECLARED:
                stop = min(end, at + self._left)
                self._left -= stop - at
                self._parser.feed_data(data[at:stop] if stop - at < _COPIED else memoryview(data)[at:stop])
                if not self._left:
                    self.part = _END
            else:
                stop = self._find_empty_line(data, at)
                self._feed(memoryview(data)[at:stop])
            at = stop
        return at

    def skip(self, data: bytes, at: int) -> int:
        """Drop bytes of the body. Otherwise the same as ``read``."""
        if self.part is not _DECLARED:
            at = self.read(data, at)
            self.body = b""
            return at
        stop = min(len(data), at + self._left)
        self._left -= stop - at
        if not self._left:
            self.part = _END
            self._parser = httptools.HttpRequestParser(self)  # the present one still expects the skipped bytes
        return stop

    def _read_head(self, data: bytes, at: int) -> int:
        """Do the work of ``_read_line`` and ``_feed`` at once for a head that is complete in ``data``."""
        line_end = data.find(b"\r\n", at)
        end = data.find(_EMPTY_LINE, line_end) + len(_EMPTY_LINE) if line_end > at else 0
        self._size = end - at
        if end < len(_EMPTY_LINE) or self._size > HEAD_LIMIT:
            return self._read_line(data, at)
        self.line = parse_line(data[at:line_end])
        self.part = _FIELDS
        upgrade = self._parse(_PLAIN_LINE + data[line_end + 2 : end])
        self._end_head(self.line, upgrade=upgrade)
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
        self.line = parse_line(text[start:end])
        self._parser.feed_data(_PLAIN_LINE)
        self.part, self._before = _FIELDS, b"\r\n"
        return end + 2 + offset

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
        part = self.part
        if part is _FIELDS:
            self._size += len(piece)
        else:
            self._overhead += len(piece)
        upgrade = self._parse(piece)
        if self._size > HEAD_LIMIT or self._overhead > HEAD_LIMIT:
            raise head_too_large()
        if part is _CHUNKS:
            if self._message_ended:
                self.part = _END
        elif self._head_ended and self.line is not None:
            self._end_head(self.line, upgrade=upgrade)

    def _parse(self, piece: bytes | memoryview) -> bool:
        """Give ``piece`` to the parser. Return whether it stopped at the end of a head to switch protocols."""
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserError as error:
            raise not_http(b"cannot parse the request (%b)" % str(error).encode()) from None
        return False

    def _end_head(self, line: RequestLine, *, upgrade: bool) -> None:
        """Prepare for the body. If the headers ask to switch protocols, the parser would read no body: replace it."""
        self.framing = check_headers(line, self.headers)
        length = self._left = self.framing.length
        self.part = _DECLARED if length > 0 else _CHUNKS if length == CHUNKED else _END
        if upgrade:
            self._parser = httptools.HttpRequestParser(self)
            if length:
                framing = b"transfer-encoding: chunked" if length == CHUNKED else b"content-length: %d" % length
                self._parser.feed_data(_PLAIN_LINE + framing + _EMPTY_LINE)
        self._message_ended = False

    # Callbacks of the parser.

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.part is _FIELDS:
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
        # The parser obeys Proxy-Connection, and Connection in trailers: it would ignore the next request.
        self._parser_ended = not self._parser.should_keep_alive()
