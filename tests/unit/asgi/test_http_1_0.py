"""HTTP/1.0: connections that close, keep-alive on request, and answers whose end is that of the connection."""

from __future__ import annotations

import pytest

from engine.asgi.listener import listen
from tests.support.raw_client import connect, read_answers
from tests.support.raw_exchanges import GOT, OK, PLAIN, POSTED, Row, check, closing, each, exchange, get, masked, post
from tests.support.scripted_app import ScriptedApp, problems

KEEP = b"Connection: keep-alive"


def old(request: bytes) -> bytes:
    return request.replace(b"HTTP/1.1", b"HTTP/1.0")


PARTS = ("POST /parts", b"42")
ROWS = [
    closing("a GET", old(get()) + PLAIN, GOT),
    Row("a GET without fields", b"GET /g HTTP/1.0\r\n\r\n", OK, (GOT,), closed=True, fields=(), shared=False),
    closing("a POST", old(PLAIN) + PLAIN, POSTED),
    Row(
        "a HEAD", old(get()).replace(b"GET", b"HEAD"), OK, (("HEAD /g", b""),), closed=True, bodiless=(0,), shared=False
    ),
    closing("close", old(get(b"Connection: close")) + PLAIN, GOT),
    Row("keep-alive", old(get(KEEP)), OK, (GOT,), closed=False),
    Row("keep-alive in capitals", old(get(KEEP.upper())), OK, (GOT,), closed=False),
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


@pytest.mark.parametrize("fields", [(), (KEEP,)], ids=["closes", "keeps"])
async def test_an_answer_without_length_is_not_chunked(fields: tuple[bytes, ...]) -> None:
    request = old(post(*fields, b"Content-Length: 2")).replace(b"/t", b"/parts")
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port:
        received = await exchange(port, Row("", request, OK, closed=True), 0)

    [answer] = read_answers(received)
    assert (answer.body, answer.all(b"transfer-encoding"), answer.all(b"content-length")) == (b"42", [], [])
    assert answer.all(b"connection") == [b"close"]


async def test_keep_alive_is_confirmed() -> None:
    async with listen(ScriptedApp(), "127.0.0.1", 0) as port:
        received = await exchange(port, Row("", old(get(KEEP) + get()), (OK, OK), closed=True), 0)

    first, second = read_answers(received)
    assert (first.all(b"connection"), second.all(b"connection")) == ([b"keep-alive"], [b"close"])
    assert masked(received).count(b"date: *") == 2


async def test_an_answer_that_fails_midway_does_not_look_complete() -> None:
    with problems() as found:
        async with listen(ScriptedApp(), "127.0.0.1", 0) as port, connect(port) as client:
            await client.send(old(PLAIN).replace(b"/t", b"/midway"))
            with pytest.raises(ConnectionResetError):
                await client.rest()

    assert found
