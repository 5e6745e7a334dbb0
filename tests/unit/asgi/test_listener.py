"""Listener: bounded heads, graceful stop, and no wake-ups while idle."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from engine.asgi.listener import listen
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


async def test_a_port_in_use_is_told_as_a_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="choose another --port"):
        async with listen(an_open_app(), "127.0.0.1", taken.getsockname()[1]):
            pass


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
