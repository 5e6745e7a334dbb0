"""Listener: its addresses, bounded heads, graceful stop, and no wake-ups while idle."""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from engine.errors import SettingsError
from tests.support.bridging import enter_network, needs_network
from tests.support.engine_process import ROOT
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


# --- addresses -----------------------------------------------------------------------------------------------

BOTH = ("127.0.0.1", "::1")
DEADLINE = 60.0  #: seconds after which a test fails; never waited for in a passing test

each_host = pytest.mark.parametrize("host", ["localhost", *BOTH, "0.0.0.0", "::"])


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(scope, send, Reply(body=b"served"))


async def ask(address: str, port: int, source: int = 0) -> bytes:
    reader, writer = await asyncio.open_connection(address, port, local_addr=(address, source))
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).rpartition(b"\r\n\r\n")[2]
    finally:
        writer.close()


def bind_as_a_function(address: str, port: int) -> None:
    """Listen on an address as another program would that wants to have it by any means."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((address, port))
        other.listen()


@contextmanager
def taken(address: str, port: int = 0) -> Iterator[int]:
    with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        yield one.getsockname()[1]


@each_host
async def test_both_loopback_addresses_are_served_and_kept(host: str) -> None:
    async with listen(app, host, 0) as port:
        assert [await ask(address, port) for address in BOTH] == [b"served", b"served"]
        for address in BOTH:
            with pytest.raises(OSError, match="in use"):
                bind_as_a_function(address, port)

    for address in BOTH:
        bind_as_a_function(address, port)


async def test_another_address_is_served_alone() -> None:
    async with listen(app, "127.0.0.2", 0) as port:
        assert await ask("127.0.0.2", port) == b"served"
        with taken("::1", port), taken("127.0.0.1", port):
            pass


@pytest.mark.parametrize(("host", "other"), [BOTH, BOTH[::-1]])
async def test_a_port_that_another_program_has_on_one_loopback_is_refused(host: str, other: str) -> None:
    with taken(other) as port:
        with pytest.raises(SettingsError) as raised:
            async with listen(app, host, port):
                pass
        shown = f"[{other}]" if ":" in other else other
        assert str(raised.value) == (
            f"cannot listen on {shown}:{port} (address already in use), which clients of localhost may try; "
            "choose another --port"
        )
    bind_as_a_function(host, port)


PROGRAM = """
import anyio, sys
from engine.asgi.listener import listen
from tests.unit.asgi.test_listener import app, ask, taken

async def main():
    async with listen(app, "localhost", 0) as port:
        print(port, (await ask("127.0.0.1", port, 40000)).decode())
        try:
            print((await ask("::1", port, 40000)).decode())
        except OSError as error:
            print(error.errno)

if len(sys.argv) > 1:
    with taken("::1", int(sys.argv[1])):
        anyio.run(main)
else:
    anyio.run(main)
"""


def run_apart(setting: str, value: str, *arguments: str) -> list[str]:
    """Run the program in a network of its own with this setting of the kernel. Return the words that it prints."""

    def enter() -> None:
        enter_network()
        Path("/proc/sys/net", setting).write_text(value)

    command = [sys.executable, "-c", PROGRAM, *arguments]
    run = subprocess.run(
        command, preexec_fn=enter, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


@needs_network
def test_a_port_that_is_free_on_one_loopback_only_is_not_chosen() -> None:
    for port, other in ("50000", "50001"), ("50001", "50000"):
        assert run_apart("ipv4/ip_local_port_range", "50000 50001", port) == [other, "served", "served"]


@needs_network
def test_a_machine_without_ipv6_serves_the_other_loopback() -> None:
    _, *words = run_apart("ipv6/conf/all/disable_ipv6", "1")

    assert words == ["served", str(errno.EADDRNOTAVAIL)]
