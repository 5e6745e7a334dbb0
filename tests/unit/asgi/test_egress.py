"""Addresses that count as public, and connections of limited blocks on the loops that an engine may run on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest
import uvloop

from engine.asgi.egress import Egress, is_public
from engine.config.settings import load_settings
from engine.errors import SettingsError
from tests.support.certificates import write_certificate


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::808:808", True),
        ("2002:808:808::1", True),
        *((text, False) for text in ("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1")),
        *((text, False) for text in ("169.254.169.254", "100.64.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255")),
        *((text, False) for text in ("240.0.0.1", "192.0.2.1", "198.18.0.1", "::", "::1", "fe80::1", "fe80::1%lo")),
        *((text, False) for text in ("fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "100::1")),
        *((text, False) for text in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1")),
        *((text, False) for text in ("64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::1", "2002:a00:1::")),
        ("2001:0:808:808::1", False),  # Teredo
        ("4000::1", False),  # not assigned
    ],
)
def test_an_address_is_public_or_not(text: str, public: bool) -> None:
    assert is_public(ip_address(text)) is public


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_only_listed_private_addresses_are_reached(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def reach(egress: Egress, host: str, port: int) -> bool:
        loop, reached = asyncio.get_running_loop(), 0
        with egress.limited():
            try:
                transport, _ = await asyncio.create_task(loop.create_connection(asyncio.Protocol, host, port))
                transport.close()
                reached += 1
            except PermissionError:
                pass
            with closing(socket.socket()) as sock:
                sock.setblocking(False)
                try:
                    await loop.sock_connect(sock, ("127.0.0.1", port))
                    reached += 1
                except PermissionError:
                    pass
        assert reached in (0, 2)
        transport, _ = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)  # outside, all are
        transport.close()
        return reached == 2

    async def run() -> list[bool]:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return [
                await reach(egress, host, port)
                for egress in (
                    Egress(),
                    Egress(["10.0.0.0/8", "fd00::/8"]),
                    Egress(["127.0.0.0/8"]),
                    Egress(["localhost"]),
                    Egress(active=False),
                )
                for host in ("127.0.0.1", "localhost", "0177.0.0.1")
            ]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == [False] * 6 + [True] * 9


async def test_tls_checks_the_name_and_not_the_address(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    trusting = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=serving)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with Egress(["127.0.0.1"]).limited():
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
            writer.close()
            with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):  # the certificate is the address's
                await asyncio.open_connection("localhost", port, ssl=trusting)


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0", "localhost:9092", "a b", "*", "http://x"])
def test_an_entry_that_is_no_network_address_or_name_is_refused(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"egress\.allow"):
        load_settings(overrides={"egress.allow": [entry]})
