"""Limits of connections to addresses that tenants write: only public ones, and those in ``egress.allow``."""

from __future__ import annotations

import errno
import re
from asyncio import get_running_loop
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from socket import SOCK_STREAM
from typing import Any

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"([\w-]+\.)*[A-Za-z][\w-]*\.?", re.ASCII)
_UNICAST = IPv6Network("2000::/3")  #: all that is assigned for hosts of the internet
_NAT64 = IPv6Network("64:ff9b::/96")

_limits: ContextVar[Egress | None] = ContextVar("functiond egress", default=None)


def is_public(address: Address) -> bool:
    """Return whether a host of the internet has an address, or the IPv4 address for which it stands."""
    address = _carried(address)
    # ``is_global`` is true for multicast, and for addresses of IPv6 outside the assigned ones, such as site-local.
    return address.is_global and not address.is_multicast and (address.version == 4 or address in _UNICAST)


def _carried(address: Address) -> Address:
    """Return the IPv4 address for which an IPv6 address stands (mapped, NAT64, 6to4); any other address itself."""
    if address.version == 4:
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


class Egress:
    """Limits of the connections that a block opens: only to public addresses, and to those in ``allow``.

    ``allow`` has networks, addresses, and names, which stand for their addresses at the time of a connection. Raises
    ValueError for another entry. Names are resolved once, before the check. If ``active`` is False, all is allowed.
    """

    def __init__(self, allow: Sequence[str] = (), *, active: bool = True) -> None:
        self._active = active
        self._names = [entry for entry in allow if _NAME.fullmatch(entry)]
        self._networks = [ip_network(entry, strict=False) for entry in allow if entry not in self._names]

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit the connections of a block, and of tasks that it starts. Others raise PermissionError."""
        if self._active:
            _guard(get_running_loop())
        token = _limits.set(self if self._active else None)
        try:
            yield
        finally:
            _limits.reset(token)

    async def check(self, text: str) -> None:
        address = _carried(ip_address(text))
        if is_public(address) or any(address in network for network in self._networks):
            return
        for name in self._names:
            with suppress(OSError):
                known = await get_running_loop().getaddrinfo(name, None, type=SOCK_STREAM)
                if any(_carried(ip_address(sockaddr[0])) == address for *_, sockaddr in known):
                    return
        raise PermissionError(errno.EACCES, f"{text} is no public address: the operator lists it in egress.allow")


def _guard(loop: Any) -> None:
    """Let a loop check connections of limited blocks.

    All clients connect by one of these two methods of the loop. Most clients have no hook for that themselves.
    """
    if hasattr(loop, "functiond_guarded"):
        return
    loop.functiond_guarded = True
    connect, connect_socket = loop.create_connection, loop.sock_connect

    async def create_connection(protocol: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        limits = _limits.get()
        if limits is None or host is None:  # without a host, the socket was connected by ``sock_connect``
            return await connect(protocol, host, port, **options)
        if options.get("ssl"):
            options = {"server_hostname": host, **options}
        failure = OSError(f"{host} has no address")
        for *_, sockaddr in await loop.getaddrinfo(host, port, type=SOCK_STREAM):
            try:
                await limits.check(sockaddr[0])
                return await connect(protocol, sockaddr[0], port, **options)
            except OSError as error:
                failure = error
        raise failure

    async def sock_connect(sock: Any, address: Any) -> None:
        if (limits := _limits.get()) is not None:
            await limits.check(address[0])
        await connect_socket(sock, address)

    loop.create_connection, loop.sock_connect = create_connection, sock_connect
