"""Clients that close their sending side after a request, and still read the answer."""

from __future__ import annotations

import anyio
import pytest

from engine.asgi import deadline, listener, streaming
from engine.asgi.connection import Connection
from engine.asgi.listener import listen
from engine.asgi.streaming import EVENTS, Stream, Write, stream
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect, read_answers
from tests.support.raw_exchanges import CHUNKED, GOT, OK, PLAIN, POSTED, End, Row, answered, check, each, get, post
from tests.support.scripted_app import ScriptedApp, no_problems

ABORTED = ("POST /t", None)
BIG = b"x" * (6 << 20)
DEADLINE = 30

ROWS = [
    answered("a GET", (get(), End()), GOT),
    answered("a POST", (PLAIN, End()), POSTED),
    answered("a chunked POST", (CHUNKED + b"2\r\n42\r\n0\r\n\r\n", End()), POSTED),
    answered("a HEAD", (get().replace(b"GET", b"HEAD"), End()), ("HEAD /g", b""), bodiless=(0,)),
    answered("a GET that closes", (get(b"Connection: close"), End()), GOT),
    answered("a GET of HTTP/1.0", (get().replace(b"HTTP/1.1", b"HTTP/1.0"), End()), GOT),
    answered("three requests", (PLAIN + get() + PLAIN, End()), POSTED, GOT, POSTED),
    answered("50 requests", (PLAIN * 50, End()), *[POSTED] * 50),
    answered("an answer without length", (PLAIN.replace(b"/t", b"/parts"), End()), ("POST /parts", b"42")),
    answered("a request and half a head", (PLAIN + get()[:-2], End()), POSTED),
    Row("a request and half a body", (PLAIN + PLAIN[:-1], End()), OK, (POSTED, ABORTED)),
    answered("a request and an empty line", (PLAIN + b"\r\n", End()), POSTED),
    Row("a refused request", (get(b"A b: c"), End()), 400),
    Row(
        "a refused upload",
        (post(b"Content-Length: 3").replace(b"/t", b"/413"), End()),
        413,
        (("POST /413", b""),),
        shared=False,
    ),
    answered("a large body", (post(b"Content-Length: %d" % len(BIG), body=BIG), End()), ("POST /t", BIG), cut=False),
]


@each(ROWS)
async def test_a_half_closed_client_gets_its_answers(row: Row) -> None:
    await check(row)


@pytest.mark.parametrize("more", [b"", PLAIN], ids=["alone", "with-another"])
async def test_an_application_that_gets_the_disconnect_can_still_answer(more: bytes) -> None:
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(PLAIN.replace(b"/t", b"/hold") + more)
        await app.entered.wait()
        client.end()
        await app.disconnected.wait()
        app.release.set()
        answers = read_answers(await client.rest())

    assert [(answer.status, answer.body) for answer in answers] == [(200, b"42")] * (2 if more else 1)
    assert app.events == ["http.disconnect"]


async def wait_for_close(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer once the client has closed its sending side; requests to /413 at once."""
    while scope["path"] != "/413" and (await receive())["type"] != "http.disconnect":
        pass
    await respond(scope, send, Reply(body=scope["raw_path"]))


async def test_a_request_that_begins_after_the_close_gets_the_disconnect() -> None:
    async with no_problems(), listen(wait_for_close, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(get() + PLAIN)
        client.end()
        with anyio.fail_after(DEADLINE):
            answers = read_answers(await client.rest())

    assert [answer.body for answer in answers] == [b"/g", b"/t"]


class ClosedBetween(Connection):
    """Connection whose client closes its sending side after an answer, before the next request is read."""

    def _next(self) -> None:
        super()._next()
        if self._unread:
            assert self.eof_received()


async def test_a_request_that_arrived_before_the_close_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "Connection", ClosedBetween)
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(get() + PLAIN)
        with anyio.fail_after(DEADLINE):
            answers = read_answers(await client.rest())

    assert ([answer.status for answer in answers], app.seen) == ([200, 200], [GOT, POSTED])


async def test_the_rest_of_a_refused_body_is_not_awaited_after_the_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "LINGER_PAUSE", 2 * DEADLINE)
    async with no_problems(), listen(wait_for_close, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(get() + PLAIN[:-1].replace(b"/t", b"/413"))
        client.end()
        with anyio.fail_after(DEADLINE):
            answers = read_answers(await client.rest())

    assert answers[0].body == b"/g"


async def test_a_client_that_stays_is_not_taken_for_closed() -> None:
    app = ScriptedApp()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(PLAIN.replace(b"/t", b"/hold"))
        await app.entered.wait()
        await client.send(PLAIN)
        app.release.set()
        await client.until(b"\r\n\r\n42HTTP")

    assert app.events == []


class LiveLog:
    """Application with a live log: one line at the begin, and another once ``more`` is set."""

    def __init__(self) -> None:
        self.begun, self.more, self.ended = anyio.Event(), anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await stream(receive, send, Stream(content_type=EVENTS, run=self._write))
        self.ended.set()

    async def _write(self, write: Write) -> None:
        await write(b"one\n")
        self.begun.set()
        await self.more.wait()
        await write(b"two\n")


async def test_a_half_closed_client_gets_the_whole_live_log() -> None:
    app = LiveLog()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port, connect(port) as client:
        await client.send(get())
        client.end()
        await client.until(streaming.HEARTBEAT)
        app.more.set()
        [answer] = read_answers(await client.rest())

    assert answer.body.replace(streaming.HEARTBEAT, b"") == b"one\ntwo\n"


async def test_the_live_log_of_a_client_that_has_gone_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PROBE_PAUSE", 0.01)
    app = LiveLog()
    async with no_problems(), listen(app, "127.0.0.1", 0) as port:
        async with connect(port) as client:
            await client.send(get())
            await app.begun.wait()
        with anyio.fail_after(DEADLINE):
            await app.ended.wait()
