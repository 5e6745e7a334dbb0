"""Request lines: methods, versions, spaces, and bytes that are not HTTP."""

from __future__ import annotations

import pytest

from engine.asgi.heads import parse_line
from engine.asgi.responses import Refusal
from tests.support.raw_exchanges import GARBAGE, GET, GOT, OK, PLAIN, POSTED, End, Row, answered, check, each, get

FIELDS = b"Host: localhost\r\n\r\n"


def line(text: bytes) -> bytes:
    """Return a request with this first line."""
    return text + b"\r\n" + FIELDS


LINES = [
    answered("a GET", get(), GOT, closed=False, fields=((b"host", b"localhost"),)),
    answered("a POST", PLAIN, POSTED),
    answered("empty lines before a request", b"\r\n\r\n" + get(), GOT),
    answered("an empty line between requests", PLAIN + b"\r\n" + PLAIN, POSTED, POSTED),
    Row("two spaces before the target", line(b"GET  /g HTTP/1.1"), 400),
    Row("two spaces before the version", line(b"GET /g  HTTP/1.1"), 400),
    Row("a space after the version", line(b"GET /g HTTP/1.1 "), 400),
    Row("a space before the method", line(b" GET /g HTTP/1.1"), 400),
    Row("a tab before the target", line(b"GET\t/g HTTP/1.1"), 400),
    Row("a tab before the version", line(b"GET /g\tHTTP/1.1"), 400),
    Row("a form feed before the version", line(b"GET /g\x0cHTTP/1.1"), 400),
    Row("a space in the target", line(b"GET /g h HTTP/1.1"), 400),
    Row("no target", line(b"GET HTTP/1.1"), 400),
    Row("only a method", line(b"GET"), 400),
    Row("NUL in the target", line(b"GET /g\x00 HTTP/1.1"), 400),
    Row("DEL in the target", line(b"GET /g\x7f HTTP/1.1"), 400),
    Row("a bare CR in the line", line(b"GET /g\r HTTP/1.1"), 400),
    Row("a bare LF after the line", b"GET /g HTTP/1.1\n" + FIELDS, 400),
    Row("a bare CR after the line", b"GET /g HTTP/1.1\r" + FIELDS, 400),
    Row("a head with bare LF only", b"GET /g HTTP/1.1\nHost: localhost\n\n", 400),
    Row("a bare LF after a field", b"GET /g HTTP/1.1\r\nHost: localhost\n\r\n", 400),
    Row("a bare LF at the end of the head", b"GET /g HTTP/1.1\r\nHost: localhost\r\n\n", 400),
]

VERSIONS = [
    Row("HTTP/0.9 without a version", b"GET /g\r\n\r\n", 400),
    Row("no version, but fields", line(b"GET /g"), 400),
    Row("HTTP/0.9", line(b"GET /g HTTP/0.9"), 505),
    answered("HTTP/1.2", line(b"GET /g HTTP/1.2"), GOT),
    answered("HTTP/1.9", line(b"GET /g HTTP/1.9"), GOT),
    Row("HTTP/2.0", line(b"GET /g HTTP/2.0"), 505),
    Row("HTTP/3.0", line(b"GET /g HTTP/3.0"), 505),
    Row("a version without a minor number", line(b"GET /g HTTP/1"), 400),
    Row("a version in lower case", line(b"GET /g http/1.1"), 400),
    Row("a version of three numbers", line(b"GET /g HTTP/1.1.1"), 400),
    Row("a version of two digits", line(b"GET /g HTTP/11.1"), 400),
    Row("a minor version of two digits", line(b"GET /g HTTP/1.10"), 400),
    Row("a version with a comma", line(b"GET /g HTTP/1,1"), 400),
    Row("a version of RTSP", line(b"GET /g RTSP/1.0"), 400),
    Row("a version of ICE", line(b"SOURCE /g ICE/1.0"), 400),
]

METHODS = [
    *(
        answered(f"the method {method}", line(method.encode() + b" /g HTTP/1.1"), (f"{method} /g", b""))
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
    ),
    answered("the method HEAD", line(b"HEAD /g HTTP/1.1"), ("HEAD /g", b""), bodiless=(0,)),
    *(
        Row(f"the method {method}", line(method.encode() + b" /g HTTP/1.1"), 501)
        for method in ("BREW", "PROPFIND", "M-SEARCH", "QUERY", "GETS", "DESCRIBE")
    ),
    Row("a method in lower case", line(b"get /g HTTP/1.1"), 501),
    Row("a method of 100 letters", line(b"G" * 100 + b" /g HTTP/1.1"), 501),
    Row("a method with a forbidden character", line(b"GE(T /g HTTP/1.1"), 400),
    Row("a method with NUL", line(b"G\x00T /g HTTP/1.1"), 400),
    Row("a method behind a good request", PLAIN + line(b"BREW /g HTTP/1.1"), (OK, 501), seen=(POSTED,)),
    answered("OPTIONS of the server", line(b"OPTIONS * HTTP/1.1"), ("OPTIONS *", b"")),
]

FOREIGN = [
    Row("garbage", GARBAGE, 400),
    Row("garbage behind a good request", PLAIN + GARBAGE, (OK, 400), seen=(POSTED,)),
    Row("garbage behind two good requests", (PLAIN, PLAIN, GARBAGE), (OK, OK, 400), seen=(POSTED, POSTED)),
    Row("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), 400),
    Row("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
    Row("the banner of SSH", b"SSH-2.0-OpenSSH_9.2\r\n", 400),
    Row("a line of SMTP", b"EHLO client.example\r\n", 400),
    Row("a header of the PROXY protocol", b"PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n" + get(), 400),
    Row("only an empty line", (b"\r\n", End()), ()),
    Row("no bytes at all", (End(),), ()),
    Row("a request line that breaks off", (b"GET /g HT", End()), ()),
    Row("a head that breaks off", (GET, End()), ()),
]

ROWS = [*LINES, *VERSIONS, *METHODS, *FOREIGN]


@each(ROWS)
async def test_request_lines_are_as_the_standard_says(row: Row) -> None:
    await check(row)


def test_a_target_that_is_not_ascii_is_refused_with_the_reason() -> None:
    with pytest.raises(Refusal, match="not ASCII; percent-encode them"):
        parse_line("GET /ä HTTP/1.1".encode())
