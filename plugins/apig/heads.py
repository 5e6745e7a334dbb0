"""Head of a request for the server of an HTTP function: method, target and headers with their bytes unchanged.

The members of the documented event are decoded, and repeated headers are joined. From them, the bytes that the client
sent cannot be restored. HTTP functions therefore get two further members, which other functions do not get.
"""

from __future__ import annotations

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

    Repeated headers keep their number and order. The client's credentials are left out; headers about the sender are
    added.
    """
    hidden = credential_headers(route, headers) | sender.headers.keys()
    given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    head = _Head(
        rawRequest=f"{scope['method']} {scope[TARGET].partition(b'#')[0].decode('latin-1')}",
        rawHeaders=[*(pair for pair in given if pair[0] not in hidden), *sender.headers.items()],
    )
    return msgspec.json.encode(head)[1:-1]
