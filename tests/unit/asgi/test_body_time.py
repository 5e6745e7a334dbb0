"""Time for whole bodies: slow ones end, and those that the engine itself delays do not."""

from __future__ import annotations

import asyncio
from contextlib import closing, suppress

import anyio
import pytest

from engine.asgi.admission import ClientRules
from engine.asgi.deadline import BodyTime
from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect

DEADLINE = 60
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


class Reader:
    """Application that reads each request completely before it answers. None in ``read`` marks an aborted body."""

    def __init__(self) -> None:
        self.read: list[bytes | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.read.append(None)
                return
            body, more = body + message["body"], message["more_body"]
        self.read.append(body)
        await respond(scope, send, Reply(body=b"ok"))


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


@pytest.fixture
def rules() -> ClientRules:
    return ClientRules(body_timeout=0.4)


@pytest.mark.parametrize(("head", "piece"), [(post(1 << 20), b"x"), (CHUNKED, b"1\r\nx\r\n")], ids=["plain", "chunked"])
async def test_a_body_that_dribbles_ends(head: bytes, piece: bytes, rules: ClientRules) -> None:
    app = Reader()
    async with listen(app, "127.0.0.1", 0, rules=rules) as port, connect(port) as client:
        await client.send(head)
        rest = asyncio.create_task(client.rest())
        with anyio.fail_after(DEADLINE), suppress(ConnectionError):
            while not rest.done():
                await client.send(piece)
                await asyncio.sleep(0.05)

        assert (await rest).startswith(b"HTTP/1.1 408 ")
    assert app.read == [None]
    assert rules.turned_away.counts["slow_bodies"] == 1


class Loop(asyncio.SelectorEventLoop):
    """Event loop whose time a test sets."""

    now = 0.0

    def time(self) -> float:
        return self.now


def test_the_time_for_a_body_grows_with_its_bytes_and_with_pauses_of_the_engine() -> None:
    with closing(Loop()) as loop:
        body = BodyTime(loop, 60.0)
        body.start()
        loop.now = 50.0
        body.add(64 << 10)
        assert body.left() == 11.0
        body.pause()
        loop.now = 80.0
        body.resume()
        assert body.left() == 11.0
        loop.now = 92.0
        assert body.left() == 0.0


def test_a_pause_before_the_body_does_not_extend_its_time() -> None:
    with closing(Loop()) as loop:
        body = BodyTime(loop, 60.0)
        body.pause()
        loop.now = 50.0
        body.start()
        body.resume()

        assert body.left() == 60.0


async def test_time_in_which_the_engine_does_not_read_is_not_counted(rules: ClientRules) -> None:
    release, size = anyio.Event(), 140 << 10

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        more, count = True, 0
        while more:
            message = await receive()
            count, more = count + len(message.get("body", b"")), message.get("more_body", False)
        await respond(scope, send, Reply(body=b"%d" % count))

    async with listen(app, "127.0.0.1", 0, rules=rules) as port, connect(port) as client:
        await client.send(post(size) + b"x" * (size // 2))
        await asyncio.sleep(2)  # longer than the time for half of the body
        release.set()
        await client.send(b"x" * (size // 2))

        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_waits_for_100_continue_is_not_too_slow(rules: ClientRules) -> None:
    release = anyio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await respond(scope, send, Reply(body=(await receive())["body"]))

    async with listen(app, "127.0.0.1", 0, rules=rules) as port, connect(port) as client:
        await client.send(post(2).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        await asyncio.sleep(0.6)  # longer than the time for a body
        release.set()
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await client.send(b"ok")

        await client.until(b"HTTP/1.1 200 ")
