"""Listener: bounded heads, graceful stop, and no wake-ups while idle."""

from __future__ import annotations

import asyncio
import selectors
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Scope, Send
from engine.errors import SettingsError
from tests.support.raw_client import RawClient, connect

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


async def test_a_free_port_is_found_and_given_up_at_the_end() -> None:
    async with listen(an_open_app(), "localhost", 0) as port, connect(port) as client:
        await client.send(GET + b"\r\n")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")

    with pytest.raises(ConnectionRefusedError):
        async with connect(port):
            pass


async def test_a_port_in_use_is_an_error_of_settings() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="choose another --port"):
        async with listen(an_open_app(), "127.0.0.1", taken.getsockname()[1]):
            pass


async def test_the_end_waits_for_running_requests_but_takes_no_new_ones() -> None:
    app = App()
    async with anyio.create_task_group() as tasks, connect_during(app, tasks) as (client, port, left):
        await client.send(GET + b"\r\n")
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
        await client.send(GET + b"\r\n")
        await app.answered.wait()
        left.set()

        assert (await client.rest()).count(b"x") == size


async def test_a_request_beyond_the_grace_is_cancelled() -> None:
    app = App()
    async with listen(app, "127.0.0.1", 0, grace=0.01) as port, connect(port) as client:
        await client.send(GET + b"\r\n")
        await app.entered.wait()
    assert app.ended == ["cancelled"]


async def test_an_idle_connection_does_not_delay_the_end() -> None:
    async with anyio.create_task_group() as tasks, connect_during(App(), tasks) as (client, _, ended):
        await client.send(b"GET / HT")
        ended.set()
        with suppress(ConnectionResetError):
            await client.rest()
        assert client.received == b""


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
async def connect_during(app: App, tasks: anyio.abc.TaskGroup) -> AsyncIterator[tuple[RawClient, int, anyio.Event]]:
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
