"""Clients that close their sending side and still read the answer, and clients that reset their connection."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
from contextlib import suppress
from typing import Any

import anyio
import pytest

from engine.asgi import deadline, listener, streaming
from engine.asgi.connection import Connection
from engine.asgi.listener import listen
from engine.asgi.streaming import EVENTS, Stream, Write, stream
from engine.asgi.wire import ClientDisconnect, Receive, Reply, Scope, Send, read_body, respond
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


SMALL = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n"
GET = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000
REQUESTS = (
    b"garbage\r\n\r\n",
    UPLOAD,
    UPLOAD.replace(b"/read", b"/refused"),
    b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /stream HTTP/1.0\r\n\r\n",
    GET.replace(b"Host", b"Connection: close\r\nHost") * 4,
    GET * 6000,
)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b"x" * 50_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    with suppress(ClientDisconnect):
        if scope["path"] == "/read":
            await read_body(receive, dict(scope["headers"]), 1 << 20)
        await respond(scope, send, Reply(body=b"x" * (1 if scope["path"] == "/small" else 300_000)))


def reset_on_close(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def misbehave(port: int, seed: int) -> None:
    choices = random.Random(seed)
    for _ in range(60):
        with socket.create_connection(("127.0.0.1", port)) as client, suppress(OSError):
            client.settimeout(choices.choice((0.001, 0.01, 0.03)))
            client.sendall(choices.choice(REQUESTS))
            if choices.random() < 0.6:
                client.recv(choices.choice((10, 100_000)))
            if choices.random() < 0.3:
                client.shutdown(socket.SHUT_WR)
            if choices.random() < 0.6:  # close by a reset
                reset_on_close(client)


async def test_a_reset_is_never_an_error(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    with caplog.at_level(logging.WARNING):
        async with listen(app, "127.0.0.1", 0, grace=1) as port:
            await asyncio.gather(*(asyncio.to_thread(misbehave, port, seed) for seed in range(6)))

    assert errors == []
    assert caplog.records == []
    assert capsys.readouterr().out == ""  # the log of the listener


async def test_a_client_that_resets_an_idle_connection_when_the_listener_ends_is_no_error() -> None:
    async with listen(app, "127.0.0.1", 0, grace=1) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.setblocking(False)
            await asyncio.get_running_loop().sock_sendall(client, SMALL)
            assert await asyncio.get_running_loop().sock_recv(client, 1000)
            reset_on_close(client)  # the loop has not yet read the reset
