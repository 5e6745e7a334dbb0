"""Several requests on one connection: their order, their end with the connection, and bounds of what waits."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress

import anyio
import pytest

from engine.asgi.listener import listen
from tests.support.raw_client import RawClient, connect, read_answers
from tests.support.raw_exchanges import (
    CHUNKED,
    GARBAGE,
    GOT,
    LIMIT,
    OK,
    PLAIN,
    POSTED,
    Row,
    answered,
    check,
    closing,
    each,
    get,
    post,
)
from tests.support.scripted_app import ScriptedApp, no_problems

CHUNKS = CHUNKED + b"2\r\n42\r\n0\r\n\r\n"
HOLD = PLAIN.replace(b"/t", b"/hold")
HELD = ("POST /hold", b"42")
BIG = b"x" * (1 << 20)

ROWS = [
    answered("two requests", PLAIN + get(), POSTED, GOT),
    answered("50 requests", PLAIN * 50, *[POSTED] * 50),
    answered("500 requests", get() * 500, *[GOT] * 500, shared=False),
    answered("requests of each kind", PLAIN + CHUNKS + get() + CHUNKS + PLAIN, POSTED, POSTED, GOT, POSTED, POSTED),
    answered(
        "HEAD between others",
        PLAIN + get().replace(b"GET", b"HEAD") + PLAIN,
        POSTED,
        ("HEAD /g", b""),
        POSTED,
        bodiless=(1,),
    ),
    answered("a request behind one that closes", get(b"Connection: close") + PLAIN, GOT, closed=True, cut=False),
    answered("close in a list", get(b"Connection: foo, Close") + PLAIN, GOT, closed=True, cut=False),
    closing("close in a second field", get(b"Connection: foo", b"Connection: close") + PLAIN, GOT),
    answered("garbage behind one that closes", get(b"Connection: close") + GARBAGE, GOT, closed=True, cut=False),
    answered("keep-alive and close", get(b"Connection: keep-alive, close") + PLAIN, GOT, closed=True, cut=False),
    Row("a refusal behind good requests", PLAIN * 3 + get(b"A b: c") + PLAIN, (OK, OK, OK, 400), (POSTED,) * 3),
    Row(
        "an answer of the application without the body",
        post(b"Content-Length: 2").replace(b"/t", b"/404") + PLAIN,
        (404, OK),
        (("POST /404", b""), POSTED),
        shared=False,
        cut=False,
    ),
    answered(
        "answers without length",
        PLAIN.replace(b"/t", b"/parts") * 3,
        ("POST /parts", b"42"),
        ("POST /parts", b"42"),
        ("POST /parts", b"42"),
    ),
    answered(
        "an answer without length to HEAD",
        get().replace(b"GET /g", b"HEAD /parts") + PLAIN,
        ("HEAD /parts", b""),
        POSTED,
        bodiless=(0,),
    ),
]


@each(ROWS)
async def test_requests_of_a_connection_are_answered_in_turn(row: Row) -> None:
    await check(row)


async def test_a_request_waits_for_the_answer_to_the_one_before() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(HOLD + PLAIN + GARBAGE)
        await app.entered.wait()
        await client.send(PLAIN)  # is not read as a request
        assert app.seen == [HELD]
        app.release.set()

        assert [answer.status for answer in read_answers(await client.rest())] == [200, 200, 400]
    assert app.seen == [HELD, POSTED]


async def test_a_body_that_breaks_off_behind_others_is_refused_in_its_turn() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(HOLD + CHUNKED + b"no size\r\n")
        await app.entered.wait()
        app.release.set()

        assert [answer.status for answer in read_answers(await client.rest())] == [200, 400]
    assert [request for request in app.seen if request[1] is not None] == [HELD]


async def test_an_answer_under_way_is_cut_off_and_not_followed_by_an_error() -> None:
    app = ScriptedApp()
    async with listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(CHUNKED.replace(b"/t", b"/early"))
        await client.until(b"early")
        await client.send(b"no size\r\n")
        with suppress(ConnectionResetError):
            await client.rest()

    assert client.received.startswith(b"HTTP/1.1 200 ")
    assert client.received.endswith(b"early")
    assert app.seen == [("POST /early", None)]


@pytest.mark.parametrize("behind", [b"", PLAIN, PLAIN * 20, CHUNKED + b"2\r\n4"], ids=["none", "one", "many", "half"])
@pytest.mark.parametrize("end", [RawClient.reset, RawClient.end], ids=["reset", "closed"])
async def test_the_running_request_gets_the_disconnect_of_its_client(behind: bytes, end: object) -> None:
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port:
        async with connect(port) as client:
            await client.send(HOLD + behind)
            await app.entered.wait()
            end(client)  # type: ignore[operator]
        with anyio.fail_after(LIMIT):
            await app.disconnected.wait()
        app.release.set()

    assert app.events == ["http.disconnect"]
    assert app.seen[0] == HELD


async def test_a_client_that_reads_no_answers_is_not_read_either() -> None:
    app = ScriptedApp()
    request = post(b"Content-Length: %d" % len(BIG), body=BIG)
    sent = 0
    async with AsyncExitStack() as clients, listen(app, "127.0.0.1", 0, grace=0) as port:
        client = await clients.enter_async_context(connect(port, buffer=4096))  # stays when the listener ends
        scope = anyio.CancelScope()
        while sent < 200 and not scope.cancelled_caught:
            with anyio.move_on_after(0.7) as scope:
                await client.send(request)
                sent += 1

        assert sent < 100  # about 4 are held by the two buffers of the system
        assert len(app.seen) <= sent + 1


async def test_requests_behind_a_running_one_are_not_read_without_end() -> None:
    app, sent = ScriptedApp(), 0
    async with listen(app, "127.0.0.1", 0, grace=0) as port, connect(port) as client:
        await client.send(HOLD)
        await app.entered.wait()
        while sent < 24 << 20:  # the two buffers of the system hold less
            with anyio.move_on_after(1) as scope:
                await client.send(BIG)
            if scope.cancelled_caught:
                break
            sent += len(BIG)

    assert sent < 24 << 20
