"""Headers that tell the function about the sender of a request: ``x-real-ip`` and ``x-forwarded-…``.

If a request already has such headers, they are used only if the settings declare a proxy in front of the gateway.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from engine import Headers, Scope


class Sender(Struct, frozen=True, kw_only=True):
    """Sender of a request: its address, and the headers that tell the function about it."""

    address: str  #: address of the client; empty if unknown
    headers: Mapping[str, str]


def sender_of(scope: Scope, headers: Headers, *, trusted: bool) -> Sender:
    """Return the sender of a request. With ``trusted``, its address is read from the headers that a proxy has set."""
    client, server = scope.get("client"), scope.get("server")
    peer, port = client[0] if client else "", str(server[1]) if server else ""
    scheme: str = scope.get("scheme", "http")
    if not trusted:
        return Sender(address=peer, headers=_headers(peer, peer, port, scheme))
    chain = headers.get(b"x-forwarded-for", b"").decode("latin-1")
    address = headers.get(b"x-real-ip", b"").decode("latin-1") or chain.partition(",")[0].strip() or peer
    return Sender(
        address=address,
        headers=_headers(
            address,
            f"{chain}, {peer}" if chain else peer,
            headers.get(b"x-forwarded-port", port.encode()).decode("latin-1"),
            headers.get(b"x-forwarded-proto", scheme.encode()).decode("latin-1"),
        ),
    )


def _headers(address: str, chain: str, port: str, scheme: str) -> dict[str, str]:
    return {
        "x-real-ip": address,
        "x-forwarded-for": chain,
        "x-forwarded-port": port,
        "x-forwarded-proto": scheme,
    }
