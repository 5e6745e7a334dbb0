"""HTTP/1.0: connections that close, keep-alive on request, and answers whose end is that of the connection."""

from __future__ import annotations

from tests.support.raw_exchanges import GOT, PLAIN, POSTED, Row, answered, check, closing, each, get, post

KEEP = b"Connection: keep-alive"


def old(request: bytes) -> bytes:
    return request.replace(b"HTTP/1.1", b"HTTP/1.0")


PARTS = ("POST /parts", b"42")
ROWS = [
    closing("a GET", old(get()) + PLAIN, GOT),
    answered("a GET without fields", b"GET /g HTTP/1.0\r\n\r\n", GOT, closed=True, fields=(), shared=False),
    closing("a POST", old(PLAIN) + PLAIN, POSTED),
    answered("a HEAD", old(get()).replace(b"GET", b"HEAD"), ("HEAD /g", b""), closed=True, bodiless=(0,)),
    closing("close", old(get(b"Connection: close")) + PLAIN, GOT),
    answered("keep-alive", old(get(KEEP)), GOT, closed=False),
    answered("keep-alive in capitals", old(get(KEEP.upper())), GOT, closed=False),
    closing(
        "keep-alive of each request",
        old(get(KEEP) + post(KEEP, b"Content-Length: 2") + get()) + PLAIN,
        *(GOT, POSTED, GOT),
    ),
    closing("keep-alive and close", old(get(b"Connection: close, keep-alive")) + PLAIN, GOT),
    closing("a body without a length", old(post(body=b"42")), ("POST /t", b""), shared=False),
    Row("keep-alive of a refused request", old(get(KEEP, b"A b: c")), 400),
    closing("an answer without length", old(PLAIN).replace(b"/t", b"/parts") + PLAIN, PARTS, shared=False),
    closing(
        "keep-alive of an answer without length",
        old(post(KEEP, b"Content-Length: 2")).replace(b"/t", b"/parts") + PLAIN,
        PARTS,
        shared=False,
    ),
]


@each(ROWS)
async def test_a_connection_of_http_1_0_closes_unless_it_is_to_be_kept(row: Row) -> None:
    await check(row)
