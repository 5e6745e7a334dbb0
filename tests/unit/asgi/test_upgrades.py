"""Upgrades: WebSocket is refused, and all others are ignored, so that the request is an ordinary one."""

from __future__ import annotations

from tests.support.raw_exchanges import (
    GOT,
    OK,
    PLAIN,
    POSTED,
    Row,
    Until,
    answered,
    check,
    closing,
    each,
    get,
    post,
)

H2C = (
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
#: POST of Java's HTTP client in its default version HTTP/2.
JAVA = post(*H2C, b"Content-Length: 2", b"User-Agent: Java-http-client/17")
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
WEBSOCKET = (b"Connection: Upgrade", b"Upgrade: websocket", KEY, b"Sec-WebSocket-Version: 13")

IGNORED = [
    answered("h2c with a body", JAVA, POSTED),
    answered("h2c and a body apart", (JAVA[:-2], JAVA[-2:]), POSTED),
    answered("h2c without a body", get(*H2C), GOT),
    answered("h2c and more requests", JAVA + PLAIN + JAVA + get(), POSTED, POSTED, POSTED, GOT),
    answered("50 times h2c", JAVA * 50 + PLAIN, *[POSTED] * 51),
    answered(
        "h2c with a chunked body",
        post(*H2C, b"Transfer-Encoding: chunked", body=b"2\r\n42\r\n0\r\n\r\n") + PLAIN,
        POSTED,
        POSTED,
    ),
    closing("h2c that closes", JAVA.replace(b"Upgrade, ", b"close, Upgrade, ", 1) + PLAIN, POSTED),
    answered(
        "h2c with a request as its body",
        post(*H2C, b"Content-Length: %d" % len(get()), body=get()) + PLAIN,
        ("POST /t", get()),
        POSTED,
    ),
    Row(
        "h2c that waits for 100 Continue",
        (JAVA[:-2].replace(b"User-Agent", b"Expect: 100-continue\r\nUser-Agent"), Until(CONTINUE), b"42"),
        (100, OK),
        (POSTED,),
    ),
    *(
        answered(
            f"an upgrade to {word}",
            get(b"Connection: foo,  UPGRADE", b"upgrade: " + word.encode()) + PLAIN,
            GOT,
            POSTED,
        )
        for word in ("h2c", "TLS/1.2, HTTP/2.0", "anything", "websocketx")
    ),
    answered("an upgrade without its connection option", get(b"Upgrade: h2c") + PLAIN, GOT, POSTED),
    answered("websocket without its connection option", get(b"Upgrade: websocket", KEY) + PLAIN, GOT, POSTED),
    answered("a connection option without an upgrade", get(b"Connection: Upgrade") + PLAIN, GOT, POSTED),
    answered("a POST to websocket", post(*WEBSOCKET, b"Content-Length: 2") + PLAIN, POSTED, POSTED),
    answered("an upgrade of HTTP/1.0", get(*H2C).replace(b"HTTP/1.1", b"HTTP/1.0"), GOT, closed=True),
]

REFUSED = [
    Row("websocket", get(*WEBSOCKET), 501),
    Row("websocket in other letters", get(b"connection: keep-alive, UPGRADE", b"upgrade: WebSocket", KEY), 501),
    Row("websocket and frames", get(*WEBSOCKET) + b"\x81\x85\x00\x00\x00\x00hello", 501),
    Row("websocket behind a good request", PLAIN + get(*WEBSOCKET) + PLAIN, (OK, 501), (POSTED,)),
]

ROWS = [*IGNORED, *REFUSED]


@each(ROWS)
async def test_an_upgrade_is_ignored_unless_it_is_to_websocket(row: Row) -> None:
    await check(row)
