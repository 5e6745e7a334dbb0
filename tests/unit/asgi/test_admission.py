"""Admission of connections: limits in all and per client, exhausted descriptors, handshakes, and users of clients."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
import structlog

from engine.asgi.admission import ADVICE, ClientRules, ConnectionCounts, TurnedAway
from engine.asgi.forwarded import TrustedProxies
from engine.asgi.listener import listen
from engine.asgi.peers import PeerUsers, tells_uids
from engine.asgi.tls import ServerTls
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.certificates import write_certificate
from tests.support.raw_client import RawClient, connect
from tests.support.waiting import until
from tests.unit.asgi.test_listener import GET, App

OTHER = "127.0.1.9"


async def served(client: RawClient, *headers: bytes) -> bool:
    """Return whether a request on the connection gets the application's response."""
    await client.send(GET + b"".join(line + b"\r\n" for line in headers) + b"\r\n")
    try:
        return (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 20")
    except (EOFError, ConnectionError):
        return False


async def rest(client: RawClient) -> bytes:
    """Return all bytes until the listener closes or resets the connection."""
    with suppress(ConnectionResetError):
        await client.rest()
    return client.received


async def end(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(scope, send, Reply(status=204))


async def test_one_client_gets_a_quarter_of_the_connections() -> None:
    rules = ClientRules(connections=40)
    async with listen(end, "127.0.0.1", 0, rules=rules) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(port)) for _ in range(10)]
        assert [await served(client) for client in clients] == [True] * 10

        excess = [await stack.enter_async_context(connect(port)) for _ in range(12)]
        heads = [(await rest(client))[:13] for client in excess]
        assert heads == [b"HTTP/1.1 429 "] * 8 + [b""] * 4
        assert await served(await stack.enter_async_context(connect(port, source=OTHER)))
        assert rules.turned_away.counts["client_connections"] == 12


async def test_a_client_whose_connections_end_gets_new_ones() -> None:
    async with listen(end, "127.0.0.1", 0, rules=ClientRules(client_connections=1)) as port:
        for _ in range(3):
            async with connect(port) as client:
                await client.send(GET + b"Connection: close\r\n\r\n")
                assert (await rest(client)).startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize(
    ("one", "other", "refused"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
    ],
)
def test_ipv6_clients_are_counted_by_network(one: str, other: str, refused: bool) -> None:
    counts = ConnectionCounts(ClientRules(client_connections=1))
    first, second = counts.admit(one, 9), counts.admit(other, 9)

    assert first is not None
    assert second is not None
    assert first.refusal is None
    assert (second.refusal is not None) is refused
    first.release()
    first.release()
    second.release()
    assert counts.total == 0
    again = counts.admit(other, 9)
    assert again is not None
    assert again.refusal is None


async def test_requests_through_a_proxy_count_for_their_client() -> None:
    app = App()
    rules = ClientRules(client_connections=2, proxies=TrustedProxies(["127.0.0.1"]))
    forwarded = b"X-Forwarded-For: 203.0.113.%d"
    async with listen(app, "127.0.0.1", 0, rules=rules) as port, AsyncExitStack() as stack:
        proxy = [await stack.enter_async_context(connect(port)) for _ in range(5)]
        for client in proxy[:2]:
            await client.send(GET + forwarded % 1 + b"\r\n\r\n")
        await app.entered.wait()
        await proxy[2].send(GET + forwarded % 1 + b"\r\n\r\n")
        refused = await rest(proxy[2])
        app.release.set()

        assert refused.startswith(b"HTTP/1.1 429 ")
        assert await served(proxy[3], forwarded % 2)
        for client in proxy[:2]:
            assert (await client.until(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert await served(proxy[4], forwarded % 1)  # connections between two requests count for no client


async def test_all_connections_of_a_proxy_count_together_in_the_limit_of_all() -> None:
    rules = ClientRules(connections=4, proxies=TrustedProxies(["127.0.0.1"]))
    async with listen(end, "127.0.0.1", 0, rules=rules) as port, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(port)) for _ in range(4)]
        assert [await served(client) for client in clients] == [True] * 4

        assert (await rest(await stack.enter_async_context(connect(port)))).startswith(b"HTTP/1.1 503 ")
        assert rules.turned_away.counts["connections"] == 1


async def test_descriptors_of_the_engines_own_work_are_not_used_up() -> None:
    with os.fdopen(os.open(os.devnull, os.O_RDONLY)) as lowest_free:
        rules = ClientRules(files=lowest_free.fileno() + 20)
    with _used_descriptors(rules.files):
        async with listen(end, "127.0.0.1", 0, rules=rules) as port, connect(port) as client:
            assert await rest(client) == b""
    assert rules.turned_away.counts["files"] == 1


@contextmanager
def _used_descriptors(highest: int) -> Iterator[None]:
    """Use up all descriptors below ``highest``."""
    used = list[int]()
    while not used or used[-1] < highest - 1:
        used.append(os.open(os.devnull, os.O_RDONLY))
    yield
    for descriptor in used:
        os.close(descriptor)


@contextmanager
def _no_free_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_listener_without_a_free_descriptor_lets_clients_wait() -> None:
    rules = ClientRules()
    async with listen(end, "127.0.0.1", 0, rules=rules) as port:
        with socket.socket() as client:
            client.setblocking(False)
            with _no_free_descriptor():
                with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
                    os.open(os.devnull, os.O_RDONLY)
                await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
                await until(lambda: rules.turned_away.counts["files"])
            await asyncio.get_running_loop().sock_sendall(client, GET + b"\r\n")
            answer = await asyncio.get_running_loop().sock_recv(client, 1000)
    assert answer.startswith(b"HTTP/1.1 204 ")


async def test_connections_in_their_handshake_count(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    tls = ServerTls(tmp_path / "cert.pem", tmp_path / "key.pem")
    rules = ClientRules(client_connections=2)

    async with listen(end, "127.0.0.1", 0, rules=rules, tls=tls) as port:
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(connect(port)) for _ in range(11)]
            assert await rest(clients[-1]) == b""
            assert rules.turned_away.counts["client_connections"] == 9
        async with connect(port) as broken:
            await broken.send(GET + b"\r\n")
            await rest(broken)
        async with AsyncExitStack() as stack:  # failed handshakes count no more
            clients = [await stack.enter_async_context(connect(port)) for _ in range(11)]
            assert await rest(clients[-1]) == b""
    assert rules.turned_away.counts["client_connections"] == 18


def test_a_flood_of_refusals_is_logged_once() -> None:
    turned_away = TurnedAway()
    with structlog.testing.capture_logs() as lines:
        for _ in range(1000):
            turned_away.note("connections", "192.0.2.1")
        turned_away.note("files")

    assert [(line["limit"], line["hint"]) for line in lines] == [
        (kind, ADVICE[kind]) for kind in ("connections", "files")
    ]
    assert (turned_away.counts["connections"], turned_away.counts["files"]) == (1000, 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_has_the_user_of_its_client_until_that_closes_it(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    users = PeerUsers()
    with closing(users), socket.create_server((host, 0), family=family) as server, socket.socket(family) as client:
        if not tells_uids():
            pytest.skip("the kernel has no tcp_diag")
        client.connect(server.getsockname())
        accepted, address = server.accept()
        with accepted:
            ends = (address[0], address[1]), (host, int(server.getsockname()[1]))
            assert users.uid_of(*ends) == os.geteuid()
            client.close()  # the kernel would call it root's
            assert users.uid_of(*ends) is None
        assert users.uid_of((host, 1), ends[1]) is None
