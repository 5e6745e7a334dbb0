"""Listeners on both loopback addresses, so that no other program gets what clients send to ``localhost``."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from engine.errors import SettingsError
from tests.support.bridging import enter_network, needs_network
from tests.support.engine_process import ROOT

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
from tests.unit.asgi.test_loopback import app, ask, taken

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
