"""Reading of requests and sending of replies by ASGI.

Request bodies have a size limit; replies are sent in one piece.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from engine import WHOLE_REPLY, PayloadTooLarge
from plugins.apig.problems import Headers

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class ClientDisconnect(Exception):
    """Error raised when the client closes the connection before the whole request was received."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """Return a request's headers, keyed by names in lower case. Values of a repeated header are joined to one."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in found:
            value = found[name] + (b"; " if name == b"cookie" else b", ") + value
        found[name] = value
    return found


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int) -> bytes:
    """Return the body of a request.

    Raises PayloadTooLarge if it has more than ``limit`` bytes; ClientDisconnect if the client closes the connection.
    """
    if int(headers.get(b"content-length", b"0")) > limit:
        raise PayloadTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    body: bytes = message.get("body", b"")
    return await _read_rest(receive, body, limit) if message.get("more_body") or len(body) > limit else body


async def _read_rest(receive: Receive, start: bytes, limit: int) -> bytes:
    body, more = bytearray(start), True
    while more and len(body) <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        raise PayloadTooLarge(limit)
    return bytes(body)


async def respond(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    lines = list(headers)
    if status not in (204, 304):
        lines.append((b"content-length", b"%d" % len(body)))
    else:
        body = b""
    whole = scope.get("extensions", {}).get(WHOLE_REPLY)
    if whole is None or not whole["write"](status, lines, body):
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})
