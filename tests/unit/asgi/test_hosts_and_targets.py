"""Header Host, forms of the target, and CONNECT."""

from __future__ import annotations

from tests.support.raw_exchanges import GOT, OK, PLAIN, POSTED, Row, answered, check, each, get


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

TARGETS = [
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

ROWS = [*HOSTS, *ABSOLUTE, *TARGETS, *TUNNELS]


@each(ROWS)
async def test_hosts_and_targets_are_as_the_standard_says(row: Row) -> None:
    await check(row)
