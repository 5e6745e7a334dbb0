"""Clients behind proxies: the headers X-Forwarded-For, -Host, -Proto and -Port of trusted proxies.

Anyone can send these headers, and most proxies append to those of their client. Therefore, they count only if the peer
of the connection is a trusted proxy, and each is read from the right: the last value is that of the nearest proxy. The
client is the last address of X-Forwarded-For that is not a trusted proxy. Everything left of it may be forged.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct

from engine.asgi.addresses import read_address
from engine.asgi.responses import Header
from engine.asgi.wire import Scope

#: Key of the ASGI scope: the ``Forwarded`` of a request that came through a trusted proxy. Absent for all others.
FORWARDED = "functiond.forwarded"
HOPS = 32  #: addresses of X-Forwarded-For that are read at most

_LONGEST = 64  # characters of an address with brackets, zone and port
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([\d.]+):\d{1,5}")
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_PORT = re.compile(rb"\d{1,5}")
_NAMES = (b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port")


class Forwarded(Struct, frozen=True, kw_only=True):
    """Request as the client sent it to the first trusted proxy. A part that no proxy has told is empty."""

    client: str  #: address of the client; that of a proxy if no proxy tells a valid one
    chain: str  #: addresses of the client and of the proxies behind it, separated by commas
    host: bytes = b""  #: name and port in the client's Host
    scheme: str = ""  #: http or https
    port: str = ""


class TrustedProxies:
    """Proxies whose headers about their clients count. ``networks`` are addresses and networks such as 10.0.0.0/8.

    Raises ValueError if one of them is invalid.
    """

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [_read_network(text) for text in networks]
        # The cache is a part of the object, so that two engines in one process stay apart.
        self._read = lru_cache(4096)(self._read_hop)

    def __contains__(self, address: str) -> bool:
        return bool(self._networks) and self._read(address)[1]

    def read_into(self, scope: Scope) -> str:
        """Put the client, its scheme, and the ``Forwarded`` of a trusted proxy's request into ``scope``.

        Return the address of the client.
        """
        forwarded = self.resolve(scope["client"][0], scope["headers"])
        scope[FORWARDED] = forwarded
        scope["client"] = (forwarded.client, 0)
        scope["scheme"] = forwarded.scheme or scope["scheme"]
        return forwarded.client

    def resolve(self, peer: str, headers: Iterable[Header]) -> Forwarded:
        """Return the client of a request whose connection has the trusted proxy ``peer`` as its other end."""
        hops, last = [], dict[bytes, bytes]()
        for name, value in headers:
            if name == b"x-forwarded-for":
                hops.append(value)
            elif name in _NAMES:
                last[name] = value.rpartition(b",")[2].strip()
        chain = self._chain(peer, b",".join(hops).decode("latin-1"))
        host, scheme, port = (last.get(name, b"") for name in _NAMES)
        return Forwarded(
            client=chain[0],
            chain=", ".join(chain),
            host=host if _HOST.fullmatch(host) else b"",
            scheme=scheme.lower().decode() if scheme.lower() in (b"http", b"https") else "",
            port=port.decode() if _PORT.fullmatch(port) else "",
        )

    def _chain(self, peer: str, hops: str) -> list[str]:
        """Return the address of the client, then those of the proxies; the last one is ``peer``."""
        chain = [peer]
        for hop in reversed(hops.rsplit(",", HOPS)[-HOPS:]):
            address, is_proxy = self._read(hop.strip())
            if not address:  # the proxy does not know its client
                break
            chain.insert(0, address)
            if not is_proxy:
                break
        return chain

    def _read_hop(self, text: str) -> tuple[str, bool]:
        """Return an address without its port, and whether it is a trusted proxy; an empty text if it is no address."""
        if len(text) > _LONGEST:
            return "", False
        if match := _WITH_PORT.fullmatch(text):
            text = match[1] or match[2] or ""
        address = read_address(text)
        if address is None:
            return "", False
        return str(address), any(address in network for network in self._networks)


def _read_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}; use addresses and networks, such as 127.0.0.1 and 10.0.0.0/8") from None
