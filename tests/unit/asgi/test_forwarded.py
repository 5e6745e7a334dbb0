"""Clients behind proxies: whose headers count, and which of their values."""

from __future__ import annotations

import json

import pytest

from engine.asgi.admission import ClientRules
from engine.asgi.forwarded import FORWARDED, HOPS, Forwarded, TrustedProxies
from engine.asgi.listener import listen
from engine.asgi.wire import Receive, Reply, Scope, Send, respond
from tests.support.raw_client import connect

PEER = "10.0.0.1"
CLIENT = "198.51.100.7"


@pytest.fixture
def proxies() -> TrustedProxies:
    return TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])


def client_of(proxies: TrustedProxies, *chains: str) -> str:
    return proxies.resolve(PEER, [(b"x-forwarded-for", chain.encode()) for chain in chains]).client


@pytest.mark.parametrize(
    ("chains", "client"),
    [
        ([], PEER),
        ([""], PEER),
        ([CLIENT], CLIENT),
        (["203.0.113.1, " + CLIENT], CLIENT),
        ([f"{CLIENT}, 10.0.0.2,10.9.9.9"], CLIENT),
        (["203.0.113.1", CLIENT, "10.0.0.2"], CLIENT),
        (["203.0.113.1, unknown"], PEER),
        (["203.0.113.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([f"{CLIENT}:4711"], CLIENT),
        (["[2001:db9::1]:4711"], "2001:db9::1"),
        (["2001:db9::1, 2001:db8::5"], "2001:db9::1"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        (["x" * 60_000], PEER),
        ([", ".join([CLIENT, *(f"10.0.1.{number}" for number in range(HOPS))])], "10.0.1.0"),
    ],
)
def test_the_client_is_the_last_address_that_is_not_a_proxy(
    proxies: TrustedProxies, chains: list[str], client: str
) -> None:
    assert client_of(proxies, *chains) == client


def test_the_last_values_of_the_nearest_proxy_count(proxies: TrustedProxies) -> None:
    headers = [
        (b"x-forwarded-for", f"203.0.113.1, {CLIENT}, 10.0.0.2".encode()),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-host", b"evil.example, api.example:8443"),
        (b"x-forwarded-proto", b"http, HTTPS"),
        (b"x-forwarded-port", b"80, 8443"),
    ]

    assert proxies.resolve(PEER, headers) == Forwarded(
        client=CLIENT, chain=f"{CLIENT}, 10.0.0.2, {PEER}", host=b"api.example:8443", scheme="https", port="8443"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-forwarded-host", b"a b"),
        (b"x-forwarded-host", b"user@host"),
        (b"x-forwarded-host", b"host/path"),
        (b"x-forwarded-proto", b"javascript"),
        (b"x-forwarded-port", b"eighty"),
    ],
)
def test_values_that_are_not_valid_are_as_if_not_sent(proxies: TrustedProxies, name: bytes, value: bytes) -> None:
    assert proxies.resolve(PEER, [(name, value)]) == Forwarded(client=PEER, chain=PEER)


@pytest.mark.parametrize(
    ("address", "trusted"), [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("11.0.0.1", False), ("", False)]
)
def test_proxies_are_known_by_address(proxies: TrustedProxies, address: str, trusted: bool) -> None:
    assert (address in proxies) is trusted
    assert address not in TrustedProxies()


async def tell(scope: Scope, receive: Receive, send: Send) -> None:
    forwarded = scope.get(FORWARDED)
    told = [scope["client"][0], scope["scheme"], forwarded.host.decode() if forwarded else None]
    await respond(scope, send, Reply(body=json.dumps(told).encode()))


@pytest.mark.parametrize(
    ("trusted", "told"),
    [
        (["127.0.0.1"], [CLIENT, "https", "api.example"]),
        (["127.0.0.2"], ["127.0.0.1", "http", None]),
        ([], ["127.0.0.1", "http", None]),
    ],
)
async def test_a_listener_believes_trusted_proxies_only(trusted: list[str], told: list[str | None]) -> None:
    rules = ClientRules(proxies=TrustedProxies(trusted))
    async with listen(tell, "127.0.0.1", 0, rules=rules) as port, connect(port) as client:
        await client.send(
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.1, "
            b"198.51.100.7\r\nX-Forwarded-Host: api.example\r\nX-Forwarded-Proto: https\r\n\r\n"
        )

        assert json.loads((await client.rest()).partition(b"\r\n\r\n")[2]) == told
