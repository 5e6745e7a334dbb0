"""Network addresses of clients, and the networks by which clients are counted."""

from __future__ import annotations

import ipaddress
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def read_address(text: str) -> Address | None:
    """Parse an address; None if the text is none. An IPv6 address that contains an IPv4 address gives the latter."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def network_of(address: str) -> str:
    """Return an IPv4 address as given, and the /64 network of an IPv6 address.

    One client usually controls a /64 network completely. An IPv6 address that contains an IPv4 address, such as
    ``::ffff:192.0.2.1``, gives the latter. A text that is no address is returned unchanged.
    """
    parsed = read_address(address)
    if parsed is None:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))


def address_of(name: Any) -> tuple[str, int] | None:
    """Return host and port of a socket's name; None for any other kind of name."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
