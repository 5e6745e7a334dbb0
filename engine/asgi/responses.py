"""Bytes of HTTP responses: status lines, header lines, dates, and refusals that a connection sends by itself."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from http import HTTPStatus

Header = tuple[bytes, bytes]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
#: Status lines by status.
STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, _PHRASES.get(status, "").encode()) for status in range(100, 600)
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
RETRY = b"Retry-After: 1\r\n"
_HOP_BY_HOP = (b"connection", b"keep-alive", b"transfer-encoding")  # the connection sets these itself
_DATE = re.compile(rb"^date:", re.IGNORECASE | re.MULTILINE)


class Refusal(Exception):
    """Error response that the connection sends instead of the application. The connection then ends.

    ``more`` consists of complete header lines.
    """

    def __init__(self, status: int, message: bytes, more: bytes = b"") -> None:
        super().__init__(status, message)
        self.status, self.message, self.more = status, message, more

    def response(self, date: bytes, *, only_head: bool) -> bytes:
        """Return the response in the JSON form of the API's errors. ``date`` is the complete header line."""
        body = b'{"error_code":"FSS.%04d","error_msg":"%b"}' % (self.status, self.message)
        request_id = str(uuid.uuid4()).encode()
        lines = (
            STATUS_LINES[self.status],
            b"Content-Type: application/json\r\nContent-Length: %d\r\nCache-Control: no-store\r\n" % len(body),
            b"X-Request-Id: %b\r\n" % request_id,
            self.more,
            date,
            b"Connection: close\r\n\r\n",
        )
        return b"".join(lines if only_head else (*lines, body))


def header_lines(headers: Sequence[Header]) -> bytes:
    """Return the header lines of a response.

    Raises ValueError if a name or value contains CR, LF or NUL: it could end the head.
    """
    if not headers:
        return b""
    text = b"\r\n".join([b": ".join(header) for header in headers]) + b"\r\n"
    if not text.count(b"\r") == text.count(b"\n") == len(headers) or 0 in text:
        raise ValueError("a response header contains CR, LF or NUL")
    return text


def has_date(lines: bytes) -> bool:
    """Return whether ``lines``, complete header lines, include the header Date."""
    return _DATE.search(lines) is not None


class ResponseBody:
    """Framing of a response whose body is written in pieces.

    ``chunks`` tells whether the client knows chunked bodies, ``size`` is the size of the body if it is known. The end
    of the connection ends the body if neither a length nor chunks do.
    """

    def __init__(
        self,
        status: int,
        headers: Iterable[Header],
        *,
        only_head: bool,
        chunks: bool,
        size: int | None,
    ) -> None:
        if not 200 <= status < 600:
            raise ValueError(f"{status} is not a status of a final response")
        self.headers: list[Header] = []
        self.keep_alive = True  #: False: the connection must end with this response
        self._left: int | None = None  # bytes that complete the declared length
        for name, value in headers:
            lower = name.lower()
            if lower == b"connection" and b"close" in value.lower():
                self.keep_alive = False
            if lower in _HOP_BY_HOP or (lower == b"content-length" and status == 204):
                continue
            if lower == b"content-length":
                self._left = int(value)
            self.headers.append((name, value))
        self._dropped = only_head or status in (204, 304)
        self._chunked = self.until_close = False
        if self._left is None and not self._dropped:
            if size is not None:
                self._left = size
                self.headers.append((b"Content-Length", b"%d" % size))
            elif chunks:
                self._chunked = True
                self.headers.append((b"Transfer-Encoding", b"chunked"))
            else:
                self.until_close, self.keep_alive = True, False

    @property
    def is_short(self) -> bool:
        """Whether bytes of the declared length are missing."""
        return bool(self._left) and not self._dropped

    def encode(self, piece: bytes, *, more: bool) -> bytes:
        """Return the bytes to send for a piece of the body. Raises ValueError if it exceeds the declared length."""
        if self._dropped:
            return b""
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            return chunk if more else chunk + b"0\r\n\r\n"
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0:
                raise ValueError("the response body is longer than its Content-Length")
        return piece
