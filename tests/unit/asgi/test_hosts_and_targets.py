"""Header Host, forms of the target, and CONNECT."""

from __future__ import annotations

import pytest

from engine.asgi.listener import listen
from tests.support.raw_client import read_answers
from tests.support.raw_exchanges import (
    GOT,
    OK,
    PLAIN,
    POSTED,
    Row,
    check,
    each,
    exchange,
    get,
    seen_as,
)
from tests.support.scripted_app import ScriptedApp


def to(target: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    """Return a GET request with exactly these header lines."""
    return b"GET %b HTTP/%b\r\n" % (target, version) + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


HOSTS = [
    Row("no Host", to(b"/g"), 400),
    Row("two equal Hosts", to(b"/g", b"Host: localhost", b"Host: localhost"), 400),
    Row("two different Hosts", to(b"/g", b"Host: localhost", b"hOST: other"), 400),
    Row("no Host in HTTP/1.0", to(b"/g", version=b"1.0"), OK, (GOT,), closed=True, shared=False),
    Row("two Hosts in HTTP/1.0", to(b"/g", b"Host: localhost", b"Host: localhost", version=b"1.0"), 400),
    Row("a Host with a port", to(b"/g", b"Host: localhost:8080"), OK, (GOT,), fields=((b"host", b"localhost:8080"),)),
    Row("a Host without a space", to(b"/g", b"Host:localhost"), OK, (GOT,), fields=((b"host", b"localhost"),)),
    Row("a Host in capitals", to(b"/g", b"HOST: LOCALHOST"), OK, (GOT,), fields=((b"host", b"LOCALHOST"),)),
    Row("a Host of IPv6", to(b"/g", b"Host: [::1]:80"), OK, (GOT,)),
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
    Row(
        "an absolute target",
        to(b"http://localhost/g", b"Host: other.example"),
        OK,
        (GOT,),
        fields=((b"host", b"localhost"),),
    ),
    Row("the same Host", to(b"http://localhost/g", b"Host: localhost"), OK, (GOT,), fields=((b"host", b"localhost"),)),
    Row(
        "an authority with a port",
        to(b"http://localhost:81/g", b"A: b", b"Host: localhost"),
        OK,
        (GOT,),
        fields=((b"host", b"localhost:81"), (b"a", b"b")),
    ),
    Row("a scheme in capitals", to(b"HTTP://localhost/g", b"Host: localhost"), OK, (GOT,)),
    Row("no path", to(b"http://localhost", b"Host: localhost"), OK, (("GET /", b""),), shared=False),
    Row("no path, but a query", to(b"http://localhost?x=1", b"Host: a"), OK, (("GET /?x=1", b""),), shared=False),
    Row("the root", to(b"http://localhost/", b"Host: localhost"), OK, (("GET /", b""),), shared=False),
    Row(
        "a POST to an absolute target",
        PLAIN.replace(b"/t ", b"http://localhost/t "),
        OK,
        (POSTED,),
    ),
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
    seen_as(
        "a target is handed on as sent",
        to(b"/a%2Fb/%C3%bc//../;x=%00?e&e=&%20=+?", b"Host: localhost"),
        "GET /a%2Fb/%C3%bc//../;x=%00?e&e=&%20=+?",
    ),
    Row("an empty query", to(b"/x?", b"Host: localhost"), OK, (("GET /x", b""),), shared=False),
    seen_as("a path of two slashes", to(b"//other.example/x", b"Host: a"), "GET //other.example/x"),
    Row("a relative target", to(b"g", b"Host: localhost"), 400),
    Row("an authority as target", to(b"localhost:80", b"Host: localhost:80"), 400),
    Row("GET of the server", to(b"*", b"Host: localhost"), 400),
    Row("Proxy-Connection: close", get(b"Proxy-Connection: close") * 2, (OK, OK), (GOT, GOT)),
    Row(
        "Proxy-Connection in HTTP/1.0",
        to(b"/g", b"Host: localhost", b"Proxy-Connection: keep-alive", version=b"1.0"),
        OK,
        (GOT,),
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


@pytest.mark.parametrize("row", TUNNELS[:1])
async def test_a_refused_connect_names_the_methods_that_are_allowed(row: Row) -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port:
        [answer] = read_answers(await exchange(port, row, 0))

    [allowed] = answer.all(b"allow")
    assert set(allowed.split(b", ")) >= {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}
    assert b"FSS.0405" in answer.body
