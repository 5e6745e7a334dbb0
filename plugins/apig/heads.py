"""Head of a request for the server of an HTTP function: method, target and headers with their bytes unchanged.

The members of the documented event are decoded, and repeated headers are joined. From them, the bytes that the client
sent cannot be restored. HTTP functions therefore get two further members, which other functions do not get.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from engine import TARGET, Headers, Scope
from plugins.apig.access import credential_headers
from plugins.apig.forwarded import Sender
from plugins.apig.routing import Route


class _Head(Struct, frozen=True, kw_only=True):
    """Members of the event. Each character stands for one byte (latin-1)."""

    rawRequest: str  # noqa: N815  (method and target, such as "GET /a%2Fb?e")
    rawHeaders: list[tuple[str, str]]  # noqa: N815


def write_head(scope: Scope, headers: Headers, route: Route, sender: Sender) -> bytes:
    """Return the JSON members for HTTP functions, without the braces of an object.

    Repeated headers keep their number and order, except for cookies: servers expect one header (RFC 6265, 5.4). The
    client's credentials are left out; headers about the sender are added.
    """
    given = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
    if b"cookie" in headers:
        given.append((b"cookie", headers[b"cookie"]))
    head = _Head(
        rawRequest=f"{scope['method']} {scope[TARGET].partition(b'#')[0].decode('latin-1')}",
        rawHeaders=forwarded_headers(given, headers, route, sender),
    )
    return msgspec.json.encode(head)[1:-1]


def forwarded_headers(
    given: Iterable[tuple[bytes, bytes]], headers: Headers, route: Route, sender: Sender
) -> list[tuple[str, str]]:
    """Return headers for the function: those ``given`` without the client's credentials, and those about the sender.

    Many servers read "_" in a name as "-". The client could therefore replace ``x-forwarded-for`` by another spelling.
    """
    hidden = credential_headers(route, headers) | sender.headers.keys()
    shown = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in given)
    return [*(pair for pair in shown if pair[0].replace("_", "-") not in hidden), *sender.headers.items()]
