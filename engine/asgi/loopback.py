"""Sockets of a listener: at all addresses of its host, and on both loopback addresses.

Clients of ``localhost`` try ::1 and 127.0.0.1, in any order. If the engine had one of them only, another program of
this machine, such as a function, could listen on the other one, and receive tokens that are meant for the engine.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import ExitStack

from engine.errors import SettingsError

BACKLOG = 2048
ATTEMPTS = 50  #: ports, free on one address, that are tried on the other one
#: Hosts that clients of this machine may reach as ``localhost``, with the loopback address that each leaves free.
_OTHER = {"127.0.0.1": "::1", "0.0.0.0": "::1", "::1": "127.0.0.1", "::": "127.0.0.1"}
#: Errors of a machine without IPv6, or without IPv4.
_MISSING = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


async def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for ``host``, which is all of this machine if it is empty.

    If clients of ``localhost`` may reach it, the other loopback address has a socket, too, at the same port; if it is
    0, a free one. Raises SettingsError if an address cannot be bound.
    """
    host = "127.0.0.1" if host == "localhost" else host
    try:
        return _on_both(host, port, _OTHER[host]) if host in _OTHER else await _on_all(host, port)
    except OSError as error:
        raise refusal(host, port, error) from None


def _on_both(host: str, port: int, other: str) -> list[socket.socket]:
    """Return sockets at both addresses, or the first one if this machine lacks the other.

    Raises OSError if the first one cannot be bound.
    """
    with ExitStack() as in_vain:  # sockets stay open for a while, or the system might choose their ports again
        for left in reversed(range(ATTEMPTS)):
            first = _open(host, port)
            chosen = first.getsockname()[1]
            try:
                return [first, _open(other, chosen)]
            except OSError as error:
                if error.errno in _MISSING:
                    return [first]
                in_vain.enter_context(first)
                if port or error.errno != errno.EADDRINUSE or not left:
                    raise refusal(other, chosen, error, ", which clients of localhost may try") from None
    raise AssertionError("the last attempt returns or raises")


async def _on_all(host: str, port: int) -> list[socket.socket]:
    loop, sockets = asyncio.get_running_loop(), list[socket.socket]()
    infos = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    try:
        for family, _, _, _, address in dict.fromkeys(infos):
            sockets.append(open_socket(family, address))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def refusal(host: str, port: int, error: OSError, more: str = "") -> SettingsError:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    problem = (error.strerror or str(error)).lower()
    return SettingsError(f"cannot listen on {address} ({problem}){more}; choose another --port")


def _open(host: str, port: int) -> socket.socket:
    return open_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))


def open_socket(family: socket.AddressFamily, address: object) -> socket.socket:
    """Return a listening socket. Raises OSError if the address cannot be bound."""
    opened = socket.socket(family)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)  # type: ignore[arg-type]  # its form depends on the family
        # Until a socket listens, another one may be bound to the same address.
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened
