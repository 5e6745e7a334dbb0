"""Types of ASGI, reading of HTTP request bodies, and sending of HTTP replies.

Requests that invoke a function use only this module for HTTP. No request or response objects of a framework are created
for them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
from msgspec import Struct

from engine.errors import NotJson, PayloadTooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ReadBody = Callable[[], Awaitable[bytes]]  #: reads the whole body of a request, and returns it

Headers = Mapping[bytes, bytes]  #: of a request: names in lower case; a repeated header has its last value
HeaderPairs = tuple[tuple[bytes, bytes], ...]  #: of a reply

JSON = b"application/json"
SMALL_PIECE = 4 << 10  #: bytes of a piece of a body that is joined with the next one
#: Headers of all replies of the API, so that no proxy or browser stores them.
NO_STORE: HeaderPairs = ((b"Cache-Control", b"no-store"),)
#: Beginnings of the names of the console's cookies. Browsers send them to all ports of its host.
CONSOLE_COOKIES = (b"functiond_", b"__host-functiond_")
#: Name of an ASGI extension: ``scope["extensions"][WHOLE_REPLY]["write"](status, headers, body)`` sends a whole
#: reply, at half the cost of two messages. If the call returns False, nothing was sent: send the two messages.
WHOLE_REPLY = "functiond.whole_reply"
#: Key of the ASGI scope: path and query as the client sent them, in bytes. The scope's own parts of them do not tell
#: ``/a?`` from ``/a``.
TARGET = "functiond.target"
#: Key of ASGI messages with a part of a larger body: ``message[RELEASE](size)`` tells the listener, which limits the
#: bytes of requests in memory, that ``size`` bytes of the body are no longer held.
RELEASE = "functiond.release"
#: Key of the ASGI scope, absent if the body arrived in one packet: ``scope[HOLD_FOR](holder)`` counts the bytes of the
#: body in memory for ``holder``, the project of the request's credentials, and not for the client any more.
HOLD_FOR = "functiond.hold_for"
#: Key of the ASGI message ``http.disconnect``: the client has only ended its side, and may still read the response.
#: The next message comes once the connection is lost.
HALF_CLOSED = "functiond.half_closed"


class ClientDisconnect(Exception):
    """Error raised when the client closed the connection before its whole request arrived. No reply can be sent."""


class Reply(Struct, frozen=True, kw_only=True):
    """Reply to an HTTP request, with its whole body."""

    status: int = 200
    body: bytes = b""
    headers: HeaderPairs = ()
    content_type: bytes = JSON  #: empty: the header is in ``headers``, or is not sent


def json_reply(value: object, *, status: int = 200) -> Reply:
    return Reply(status=status, body=msgspec.json.encode(value))


async def respond(scope: Scope, send: Send, reply: Reply, more: HeaderPairs = ()) -> None:
    """Send a whole reply, with the headers ``more`` after its own.

    A status that allows no body is sent without the body of ``reply``.
    """
    headers, status, body = [*reply.headers, *more], reply.status, reply.body
    if status == 204 or status == 205 or status == 304:
        body = b""
    if status != 204 and status != 304:
        headers.append((b"Content-Length", b"%d" % len(body)))
    kind = reply.content_type
    if kind and (body or kind != JSON):  # an empty text body is valid text; an empty body is not valid JSON
        headers.append((b"Content-Type", kind))
    whole = scope.get("extensions", {}).get(WHOLE_REPLY)
    if whole is None or not whole["write"](status, headers, body):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """Return the whole request body. At most ``limit`` bytes and one further ASGI message are held in memory.

    Raises PayloadTooLarge if the body has more than ``limit`` bytes, and ClientDisconnect if the client closes the
    connection before the end of the body.
    """
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise PayloadTooLarge(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        return await _read_rest(receive, [body], limit)
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > limit:
        raise PayloadTooLarge(limit)
    return body


async def _read_rest(receive: Receive, pieces: list[bytes], limit: int) -> bytes:
    """Return ``pieces`` and all that follow. Pieces take less memory than one buffer that grows: it would be moved."""
    size, more = len(pieces[0]), True
    while more:
        if size > limit:
            raise PayloadTooLarge(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        if len(pieces[-1]) < SMALL_PIECE:
            pieces[-1] += piece
        else:
            pieces.append(piece)
        size += len(piece)
        more = message.get("more_body", False)
    if size > limit:
        raise PayloadTooLarge(limit)
    return b"".join(pieces)


async def read_pieces(receive: Receive, headers: Headers, limit: int, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Call ``take`` with each piece of the request body, which must not keep it in memory.

    Raises PayloadTooLarge if the body has more than ``limit`` bytes, and ClientDisconnect if the client closes the
    connection before the end of the body.
    """
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise PayloadTooLarge(limit)
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more, release = message.get("body", b""), message.get("more_body", False), message.get(RELEASE)
        if release is not None:
            release(0)  # no further packet is read before this piece is released
        size += len(piece)
        if size > limit:
            raise PayloadTooLarge(limit)
        if piece:
            await take(piece)
        if release is not None:
            release(len(piece))


def check_json(headers: Headers, body: bytes) -> None:
    """Raise NotJson unless the header Content-Type is ``application/json`` and the body is valid JSON in UTF-8."""
    if headers.get(b"content-type") != JSON:
        check_json_type(headers)
    if not body.isascii():
        check_utf8(body)
    check_json_text(body)


def check_json_text(body: bytes) -> None:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise NotJson(str(error)) from None
    except RecursionError:
        raise NotJson("nested too deeply") from None


def check_json_type(headers: Headers) -> None:
    kind = headers.get(b"content-type", b"")
    if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
        shown = kind.decode("latin-1")[:80]
        raise NotJson(f"its Content-Type is {shown!r}" if shown else "it has no Content-Type")


def check_utf8(body: bytes) -> None:
    """Raise NotJson unless the body is UTF-8.

    ``check_json_text`` does not find this error, because its decoder does not check the bytes inside JSON strings.
    """
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise NotJson(f"it is not UTF-8 at byte {error.start}") from None
