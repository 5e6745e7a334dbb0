"""Headers that tell the function about the sender of a request: ``x-real-ip`` and ``x-forwarded-…``.

The engine reads such headers of a request only if a trusted proxy sent it (``http.trusted_proxies``). The function gets
the addresses of the client and of the proxies behind it, and nothing that the client itself may have put before them.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from engine import FORWARDED, Forwarded, Scope


class Sender(Struct, frozen=True, kw_only=True):
    """Sender of a request: its address, and the headers that tell the function about it."""

    address: str  #: address of the client; empty if unknown
    headers: Mapping[str, str]


def sender_of(scope: Scope) -> Sender:
    """Return the sender of a request."""
    client, server = scope.get("client"), scope.get("server")
    address, port = client[0] if client else "", str(server[1]) if server else ""
    forwarded: Forwarded | None = scope.get(FORWARDED)
    headers = {
        "x-real-ip": address,
        "x-forwarded-for": forwarded.chain if forwarded else address,
        "x-forwarded-port": (forwarded and forwarded.port) or port,
        "x-forwarded-proto": scope["scheme"],
    }
    return Sender(address=address, headers=headers)
