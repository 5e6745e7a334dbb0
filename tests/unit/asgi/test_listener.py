"""Listener: bounded heads, graceful stop, and no wake-ups while idle."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from engine.asgi.listener import HEAD_LIMIT, listen
from engine.asgi.wire import Receive, Scope, Send
from engine.errors import SettingsError

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


class App:
    """Application that answers once ``release`` is set."""

    def __init__(self, body: bytes = b"ok") -> None:
        self._body = body
        self.entered, self.release, self.answered = anyio.Event(), anyio.Event(), anyio.Event()
        self.ended: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        length = str(len(self._body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": self._body})
        self.ended.append("answered")
        self.answered.set()


def an_open_app(body: bytes = b"ok") -> App:
    app = App(body)
    app.release.set()
    return app


class Reader:
    """Application that reads each request completely before it answers. None in ``read`` marks an aborted body."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.read: list[bytes | None] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered.set()
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.read.append(None)
                return
            body, more = body + message["body"], message["more_body"]
        self.read.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def reader() -> Reader:
    return Reader()


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """Return one complete response with the body ``ok``."""
        return await self.head() + await self._reader.readexactly(2)

    def end(self) -> None:
        self._writer.write_eof()

    async def rest(self) -> bytes:
        """Return all bytes until the server closes the connection."""
        try:
            return await self._reader.read()
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_free_port_is_found_and_given_up_at_the_end() -> None:
    async with listen(an_open_app(), "localhost", 0) as port, connect(port) as client:
        client.write(GET + b"\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 200 OK")

    with pytest.raises(ConnectionRefusedError):
        async with connect(port):
            pass


async def test_no_header_needs_a_clock() -> None:
    async with listen(an_open_app(), "127.0.0.1", 0) as port, connect(port) as client:
        client.write(GET + b"\r\n")

        assert (await client.head()).lower() == b"http/1.1 200 ok\r\ncontent-length: 2\r\n\r\n"


async def test_a_port_in_use_is_told_as_a_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="choose another --port"):
        async with listen(an_open_app(), "127.0.0.1", taken.getsockname()[1]):
            pass


async def test_connections_are_kept_and_pipelined_requests_answered_in_turn() -> None:
    async with listen(an_open_app(), "127.0.0.1", 0) as port, connect(port) as client:
        client.write((GET + b"\r\n") * 2 + GET + b"Connection: close\r\n\r\n")

        assert (await client.rest()).count(b"HTTP/1.1 200 OK") == 3


async def test_a_head_up_to_the_limit_is_taken_and_a_larger_one_is_not() -> None:
    fixed = len("/hostlocalhostx")
    async with listen(an_open_app(), "127.0.0.1", 0) as port:
        async with connect(port) as client:
            client.write(GET + b"x: " + b"a" * (HEAD_LIMIT - fixed) + b"\r\n\r\n")
            assert b"200 OK" in await client.head()
        async with connect(port) as client:
            client.write(GET + b"x: " + b"a" * (HEAD_LIMIT - fixed + 1) + b"\r\n\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 431 ")


async def test_a_head_without_end_is_cut_off() -> None:
    async with listen(App(), "127.0.0.1", 0) as port, connect(port) as client:
        client.write(GET + b"x: ")
        for _ in range(40):
            client.write(b"a" * HEAD_LIMIT)

        # The server closes with unread bytes in its buffer, so its response may be lost.
        assert (await client.rest())[:13] in (b"HTTP/1.1 431 ", b"")


async def test_what_is_not_http_is_answered_and_closed() -> None:
    async with listen(App(), "127.0.0.1", 0) as port, connect(port) as client:
        client.write(b"\x16\x03\x01 hello\r\n\r\n")

        answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"error_code":"FSS.0400"' in answer


async def test_the_end_waits_for_running_requests_but_takes_no_new_ones() -> None:
    app = App()
    async with anyio.create_task_group() as tasks, connect_during(app, tasks) as (client, port, left):
        client.write(GET + b"\r\n")
        await app.entered.wait()
        left.set()
        while True:  # until the port is closed: each attempt either connects or is refused
            try:
                async with connect(port):
                    pass
            except ConnectionError:
                break
        app.release.set()

        assert (await client.rest()).endswith(b"ok")
    assert app.ended == ["answered"]


async def test_a_slow_reader_gets_all_of_its_answer() -> None:
    size = 16 << 20
    app = an_open_app(b"x" * size)
    async with anyio.create_task_group() as tasks, connect_during(app, tasks) as (client, _, left):
        client.write(GET + b"\r\n")
        await app.answered.wait()
        left.set()

        assert (await client.rest()).count(b"x") == size


async def test_a_request_beyond_the_grace_is_cancelled() -> None:
    app = App()
    async with listen(app, "127.0.0.1", 0, grace=0.01) as port, connect(port) as client:
        client.write(GET + b"\r\n")
        await app.entered.wait()
    assert app.ended == ["cancelled"]


async def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async with listen(App(), "127.0.0.1", 0, grace=60) as port, connect(port) as client:
        client.write(b"GET / HT")

    assert await client.rest() == b""


async def test_a_silent_connection_is_closed() -> None:
    async with listen(App(), "127.0.0.1", 0, keep_alive=0) as port, connect(port) as client:
        assert await client.rest() == b""


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"])
async def test_a_head_must_be_complete_in_time(before: bytes) -> None:
    async with listen(an_open_app(), "127.0.0.1", 0, keep_alive=1) as port, connect(port) as client:
        client.write(before)
        client.write(GET)

        with anyio.fail_after(60):
            assert (await client.rest()).count(b"HTTP/1.1 200 OK") == bool(before)


async def test_a_request_may_take_longer_than_its_head() -> None:
    app = App()
    async with listen(app, "127.0.0.1", 0, keep_alive=1) as port, connect(port) as client:
        client.write(GET + b"Connection: close\r\n\r\n")
        await app.entered.wait()
        await asyncio.sleep(1.2)  # longer than the limit for a head
        app.release.set()

        assert (await client.rest()).endswith(b"ok")


async def test_a_body_that_stops_coming_is_cut_off(reader: Reader) -> None:
    async with listen(reader, "127.0.0.1", 0, keep_alive=1) as port, connect(port) as client:
        client.write(post(10) + b"x")

        with anyio.fail_after(60):
            answer = await client.rest()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"error_code":"FSS.0408"' in answer
    assert reader.read == [None]


async def test_a_body_that_comes_in_pieces_is_not_cut_off(reader: Reader) -> None:
    async with listen(reader, "127.0.0.1", 0) as port, connect(port) as client:
        for piece in (post(3), b"a", b"b", b"c"):
            client.write(piece)
            await asyncio.sleep(0)

        assert b"200 OK" in await client.head()
    assert reader.read == [b"abc"]


async def test_bodies_beyond_what_may_be_held_are_refused_and_not_run(reader: Reader) -> None:
    async with listen(reader, "127.0.0.1", 0, held_limit=1000) as port:
        async with connect(port) as first, connect(port) as second, connect(port) as third:
            for client, body in ((first, post(800) + b"x" * 799), (second, post(160) + b"x" * 5)):
                client.write(body)
                third.write(GET + b"\r\n")  # the response proves that the server has received the packet before it
                await third.answer()
            second.write(b"x" * 155)
            answer = await second.rest()
            first.write(b"x")
            assert b"200 OK" in await first.head()

            assert answer.startswith(b"HTTP/1.1 503 ")
            assert all(part in answer for part in (b'"FSS.0503"', b"retry-after: 1\r\n", b"connection: close\r\n"))
        assert [body for body in reader.read if body != b""] == [None, b"x" * 800]


async def test_what_is_answered_or_gone_is_held_no_more(reader: Reader) -> None:
    async with listen(reader, "127.0.0.1", 0, held_limit=1000) as port, connect(port) as client:
        for _ in range(3):
            client.write((post(300) + b"x" * 300) * 2 + post(40))
            await client.answer()
            client.write(b"x" * 40)
            assert b"200 OK" in await client.answer() + await client.answer()
        async with connect(port) as lost:
            lost.write(post(900) + b"x" * 800)
            lost.end()
            assert await lost.rest() == b""
        client.write(post(900) + b"x" * 800)
        client.write(b"x" * 100)

        assert b"200 OK" in await client.head()


async def test_connections_beyond_the_limit_are_refused_until_others_close(reader: Reader) -> None:
    async with listen(reader, "127.0.0.1", 0, connections=1) as port, connect(port) as first:
        first.write(GET + b"\r\n")
        await first.answer()
        async with connect(port) as second:
            assert (await second.rest()).startswith(b"HTTP/1.1 503 ")
        first.write(GET + b"Connection: close\r\n\r\n")
        await first.rest()
        async with connect(port) as third:
            third.write(GET + b"\r\n")

            assert b"200 OK" in await third.head()


def test_an_idle_server_does_not_wake_up() -> None:
    wakeups = _count_wakeups(idle=0.5)

    assert wakeups <= 3  # a server that looks ten times a second whether to stop would cause five


def _count_wakeups(idle: float) -> int:
    class Counting(selectors.DefaultSelector):
        selected = 0

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            Counting.selected += 1
            return super().select(timeout)

    async def main() -> int:
        async with listen(an_open_app(), "127.0.0.1", 0):
            before = Counting.selected
            await asyncio.sleep(idle)
            return Counting.selected - before

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Counting())) as runner:
        return runner.run(main())


@asynccontextmanager
async def connect_during(app: App, tasks: anyio.abc.TaskGroup) -> AsyncIterator[tuple[Client, int, anyio.Event]]:
    """Yield a client of a server that stops once the event is set."""
    left, ports = anyio.Event(), anyio.create_memory_object_stream[int](1)

    async def run() -> None:
        async with listen(app, "127.0.0.1", 0, grace=60) as port:
            await ports[0].send(port)
            await left.wait()

    with ports[0], ports[1]:
        tasks.start_soon(run)
        port = await ports[1].receive()
        async with connect(port) as client:
            yield client, port, left
