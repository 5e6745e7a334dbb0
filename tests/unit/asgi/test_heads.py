"""Heads of requests: their first lines, the header Host, forms of the target, CONNECT, and header fields."""

from __future__ import annotations

import pytest

from engine.asgi.heads import parse_line
from engine.asgi.responses import Refusal
from tests.support.raw_exchanges import GARBAGE, GET, GOT, OK, PLAIN, POSTED, End, Row, answered, check, each, get, post

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


def to(target: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    """Return a GET request with exactly these header lines."""
    return b"GET %b HTTP/%b\r\n" % (target, version) + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


HOSTS = [
    Row("no Host", to(b"/g"), 400),
    Row("two equal Hosts", to(b"/g", b"Host: localhost", b"Host: localhost"), 400),
    Row("two different Hosts", to(b"/g", b"Host: localhost", b"hOST: other"), 400),
    answered("no Host in HTTP/1.0", to(b"/g", version=b"1.0"), GOT, closed=True, shared=False),
    Row("two Hosts in HTTP/1.0", to(b"/g", b"Host: localhost", b"Host: localhost", version=b"1.0"), 400),
    answered("a Host with a port", to(b"/g", b"Host: localhost:8080"), GOT, fields=((b"host", b"localhost:8080"),)),
    answered("a Host without a space", to(b"/g", b"Host:localhost"), GOT, fields=((b"host", b"localhost"),)),
    answered("a Host in capitals", to(b"/g", b"HOST: LOCALHOST"), GOT, fields=((b"host", b"LOCALHOST"),)),
    answered("a Host of IPv6", to(b"/g", b"Host: [::1]:80"), GOT),
    *(
        Row(f"the Host {value.decode('latin-1')!r}", to(b"/g", b"Host: " + value), 400)
        for value in (
            *b"local host|localhost, other|user@localhost|localhost/path|localhost?query|http://localhost".split(b"|"),
            *b"localhost:port|localhost:80:80|[::1|::1]|local\\host|local<host|local\xffhost|local\x00host".split(b"|"),
        )
    ),
]

#: Absolute targets; the application sees their authority as Host.
ABSOLUTE = [
    answered(
        "an absolute target", to(b"http://localhost/g", b"Host: other.example"), GOT, fields=((b"host", b"localhost"),)
    ),
    answered("the same Host", to(b"http://localhost/g", b"Host: localhost"), GOT, fields=((b"host", b"localhost"),)),
    answered(
        "an authority with a port",
        to(b"http://localhost:81/g", b"A: b", b"Host: localhost"),
        GOT,
        fields=((b"host", b"localhost:81"), (b"a", b"b")),
    ),
    answered("a scheme in capitals", to(b"HTTP://localhost/g", b"Host: localhost"), GOT),
    answered("no path", to(b"http://localhost", b"Host: localhost"), ("GET /", b"")),
    answered("no path, but a query", to(b"http://localhost?x=1", b"Host: a"), ("GET /?x=1", b"")),
    answered("the root", to(b"http://localhost/", b"Host: localhost"), ("GET /", b"")),
    answered("a POST to an absolute target", PLAIN.replace(b"/t ", b"http://localhost/t "), POSTED),
    Row("an absolute target without Host", to(b"http://localhost/g"), 400),
    Row("an absolute target with two Hosts", to(b"http://localhost/g", b"Host: localhost", b"Host: localhost"), 400),
    Row("an invalid Host beside it", to(b"http://localhost/g", b"Host: a b"), 400),
    Row("a port that is too large", to(b"http://localhost:99999999/g", b"Host: localhost"), 400),
    Row("a port that is no number", to(b"http://localhost:http/g", b"Host: localhost"), 400),
    Row("a user in the authority", to(b"http://me@localhost/g", b"Host: localhost"), 400),
    Row("an empty authority", to(b"http:///g", b"Host: localhost"), 400),
    Row("no authority", to(b"http:/g", b"Host: localhost"), 400),
    Row("another scheme", to(b"ftp://localhost/g", b"Host: localhost"), 400),
    Row("an absolute target behind good requests", PLAIN * 2 + to(b"http://a:99999999/"), (OK, OK, 400), (POSTED,) * 2),
]

FORMS = [
    answered(
        "a target is handed on as sent",
        to(b"/a%2Fb/%C3%bc//../;x=%00?e&e=&%20=+?", b"Host: localhost"),
        ("GET /a%2Fb/%C3%bc//../;x=%00?e&e=&%20=+?", b""),
    ),
    answered("an empty query", to(b"/x?", b"Host: localhost"), ("GET /x", b"")),
    answered("a path of two slashes", to(b"//other.example/x", b"Host: a"), ("GET //other.example/x", b"")),
    Row("a relative target", to(b"g", b"Host: localhost"), 400),
    Row("an authority as target", to(b"localhost:80", b"Host: localhost:80"), 400),
    Row("GET of the server", to(b"*", b"Host: localhost"), 400),
    answered("Proxy-Connection: close", get(b"Proxy-Connection: close") * 2, GOT, GOT),
    answered(
        "Proxy-Connection in HTTP/1.0",
        to(b"/g", b"Host: localhost", b"Proxy-Connection: keep-alive", version=b"1.0"),
        GOT,
        closed=True,
    ),
]


def connect_to(*fields: bytes, version: bytes = b"1.1") -> bytes:
    lines = (b"CONNECT example.com:443 HTTP/" + version, b"Host: example.com:443", *fields, b"", b"")
    return b"\r\n".join(lines)


#: CONNECT is refused, and no byte behind it is read as a request.
TUNNELS = [
    Row("CONNECT", connect_to(), 405),
    Row("CONNECT in HTTP/1.0", connect_to(version=b"1.0"), 405),
    Row("CONNECT and more", PLAIN + connect_to() + PLAIN, (OK, 405), (POSTED,)),
    Row("CONNECT with a body", connect_to(b"Content-Length: 2") + b"42" + PLAIN, 405),
    Row("CONNECT with an upgrade", connect_to(b"Connection: Upgrade", b"Upgrade: h2c") + PLAIN, 405),
    Row("CONNECT to a path", to(b"/g", b"Host: localhost").replace(b"GET", b"CONNECT"), 405),
]

HOST = (b"host", b"localhost")
TYPE = (b"content-type", b"application/json")

ALLOWED = [
    answered("a value is trimmed", get(b"A: \t b c\t "), GOT, fields=(HOST, (b"a", b"b c"))),
    answered("an empty value", get(b"A:", b"B: "), GOT, fields=(HOST, (b"a", b""), (b"b", b""))),
    answered("a tab in a value", get(b"A: b\tc"), GOT, fields=(HOST, (b"a", b"b\tc"))),
    answered(
        "bytes beyond ASCII are handed on as sent",
        get("X-U: Grüße".encode(), b"X-L: Gr\xfc\xdfe\xff"),
        GOT,
        fields=(HOST, (b"x-u", "Grüße".encode()), (b"x-l", b"Gr\xfc\xdfe\xff")),
    ),
    answered(
        "repeated fields keep their order and number",
        get(b"A: 1", b"B: 2", b"a: 3", b"A: 1"),
        GOT,
        fields=(HOST, (b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"1")),
    ),
    answered("all characters of a name", get(b"!#$%&'*+-.^_`|~0aZ: x"), GOT),
    answered(
        "a name with an underscore is another name",
        post(b"Content_Length: 1", b"Transfer_Encoding: chunked", b"Content-Length: 2"),
        POSTED,
    ),
    answered("4000 fields", get(*(b"a%d: b" % number for number in range(4000))), GOT),
    answered("a field of 32 KiB", get(b"A: " + b"b" * (32 << 10)), GOT),
    answered(
        "a body without a field of its length",
        post(b"A: b", body=b"") + get(),
        ("POST /t", b""),
        GOT,
        fields=(HOST, TYPE, (b"a", b"b")),
    ),
]

#: Each is refused, and no part of it reaches the application.
REFUSED = [
    Row("a space in a name", get(b"A b: c"), 400),
    Row("a space before the colon", get(b"A : b"), 400),
    Row("a tab before the colon", get(b"A\t: b"), 400),
    Row("a space before the colon of Host", get(b"Host : localhost"), 400),
    Row("a line without a colon", get(b"A"), 400),
    Row("a line without a name", get(b": b"), 400),
    Row("a name with NUL", get(b"A\x00: b"), 400),
    Row("a name with a bracket", get(b"A(b): c"), 400),
    Row("a name beyond ASCII", get("Ä: b".encode()), 400),
    Row("NUL in a value", get(b"A: b\x00c"), 400),
    Row("a bare CR in a value", get(b"A: b\rc"), 400),
    Row("a bare CR before a field", get(b"A: b\rContent-Length: 5"), 400),
    Row("a bare LF before a field", get(b"A: b\nContent-Length: 5"), 400),
    Row("CR CR LF after a value", get(b"A: b\r"), 400),
    Row("a control character in a value", get(b"A: b\x01c"), 400),
    Row("DEL in a value", get(b"A: b\x7fc"), 400),
    Row("a folded line", get(b"A: b", b" c"), 400),
    Row("a line folded with a tab", get(b"A: b", b"\tc"), 400),
    Row("a folded line after an empty value", get(b"A:", b" c"), 400),
    Row("a folded first line", b"GET /g HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    Row("a folded Host", b"GET /g HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n", 400),
    Row("a folded length", post(b"Content-Length:", b" 2"), 400),
    Row("a folded coding", post(b"Transfer-Encoding:", b" chunked", body=b"2\r\n42\r\n0\r\n\r\n"), 400),
    Row("a line of spaces only", get(b"   "), 400),
    Row("more fields than 64 KiB", get(*(b"a%d: b" % number for number in range(20_000))), 431),
    Row("a value of more than 64 KiB", get(b"A: " + b"b" * (65 << 10)), 431),
    Row("a name of more than 64 KiB", get(b"a" * (65 << 10) + b": b"), 431),
    Row("a target of more than 64 KiB", b"GET /" + b"g" * (65 << 10) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
]

ROWS = [*LINES, *VERSIONS, *METHODS, *FOREIGN, *HOSTS, *ABSOLUTE, *FORMS, *TUNNELS, *ALLOWED, *REFUSED]


@each(ROWS)
async def test_heads_are_as_the_standard_says(row: Row) -> None:
    await check(row)


def test_a_target_that_is_not_ascii_is_refused_with_the_reason() -> None:
    with pytest.raises(Refusal, match="not ASCII; percent-encode them"):
        parse_line("GET /ä HTTP/1.1".encode())
