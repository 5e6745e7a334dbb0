"""Sockets of a listener on both loopback addresses.

Clients of ``localhost`` try ::1 and 127.0.0.1, in any order. If the engine had one of them only, another program of
this machine, such as a function, could listen on the other one, and receive tokens that are meant for the engine.
"""

from __future__ import annotations

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


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Return listening sockets for ``host`` and the other loopback address, at the same port; if it is 0, a free one.

    Return no socket if clients of ``localhost`` do not reach ``host``, and one if this machine lacks the other address.
    Raises SettingsError if an address cannot be bound.
    """
    host = "127.0.0.1" if host == "localhost" else host
    other = _OTHER.get(host)
    if other is None:
        return []
    with ExitStack() as in_vain:  # sockets stay open for a while, or the system might choose their ports again
        for left in reversed(range(ATTEMPTS)):
            first = _first(host, port)
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


def refusal(host: str, port: int, error: OSError, more: str = "") -> SettingsError:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    problem = (error.strerror or str(error)).lower()
    return SettingsError(f"cannot listen on {address} ({problem}){more}; choose another --port")


def _first(host: str, port: int) -> socket.socket:
    try:
        return _open(host, port)
    except OSError as error:
        raise refusal(host, port, error) from None


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
