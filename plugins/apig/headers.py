"""Headers of requests and replies: CORS, the sender of a request, and the head for the server of an HTTP function.

The gateway answers preflight requests for APIs whose option ``cors`` is set, without the function. An API for the
method OPTIONS gets preflight requests like any others.

The engine reads headers about the sender only if a trusted proxy sent the request (``http.trusted_proxies``). The
function gets the addresses of the client and of the proxies behind it, and nothing that the client itself may have put
before them.

The members of the documented event are decoded, and repeated headers are joined. From them, the bytes that the client
sent cannot be restored. HTTP functions therefore get two further members, which other functions do not get.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct

from engine import FORWARDED, TARGET, Forwarded, HeaderPairs, Headers, Scope
from plugins.apig.access import credential_headers
from plugins.apig.routing import ANY, Route

ORIGIN, METHOD, HEADERS = b"origin", b"access-control-request-method", b"access-control-request-headers"
ALLOW = b"access-control-allow-origin"
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
MAX_AGE = b"3600"  #: seconds for which browsers may cache the answer


def preflight_method(method: str, headers: Headers) -> str:
    """Return the method of the request that a preflight request announces, or an empty text for other requests."""
    is_preflight = method == "OPTIONS" and ORIGIN in headers
    return headers.get(METHOD, b"").decode("latin-1") if is_preflight else ""


def preflight(route: Route, headers: Headers) -> HeaderPairs:
    """Return the headers of the reply to a preflight request."""
    method = route.options.req_method
    return (
        (ALLOW, b"*"),
        (b"access-control-allow-methods", METHODS if method == ANY else method.encode()),
        (b"access-control-allow-headers", headers.get(HEADERS, b"*")),
        (b"access-control-max-age", MAX_AGE),
    )


def allow_origins(route: Route, headers: HeaderPairs) -> HeaderPairs:
    """Return a reply's headers, with any origin permitted if the API's ``cors`` is set.

    A header of the function that permits origins is left unchanged.
    """
    if not route.options.cors or any(name == ALLOW for name, _ in headers):
        return headers
    return (*headers, (ALLOW, b"*"))


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
