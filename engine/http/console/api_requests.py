"""Requests of the console to the engine's API, made in this process.

Every action of a page is an operation of the API, with its checks of roles, traces and errors. No page changes anything
in another way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar
from urllib.parse import unquote

import anyio
import msgspec
from msgspec import Struct

from engine.asgi.error_replies import status_of
from engine.asgi.wire import JSON, HeaderPairs, Message, Scope
from engine.errors import FunctiondError, InvalidRequest, Unavailable
from engine.http.api.invocations import Invocations
from engine.http.api.routing import ERROR, Call, ServedOperation, make_router
from engine.http.plugin_requests import PluginRequests

T = TypeVar("T")

#: Keys of the browser's request that do not hold for a request made from it.
_OWN = frozenset({"extensions", "path_params", "endpoint", "router", "route", "app"})


class ApiReply(Struct, frozen=True, kw_only=True):
    """Successful reply to a request."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def read(self, kind: type[T]) -> T:
        return msgspec.json.decode(self.body, type=kind)


class ApiRequests:
    """Requests to the operations in ``served``, to those that invoke a function, and to those of plugins."""

    def __init__(
        self, served: Iterable[ServedOperation], invocations: Invocations, plugins: PluginRequests, region: str
    ) -> None:
        self._router, self._invocations, self._plugins = make_router(served, region), invocations, plugins

    async def send(
        self,
        call: Call,
        method: str,
        target: str,
        body: Any = None,
        headers: HeaderPairs = (),
        *,
        keep_body: bool = True,
    ) -> ApiReply:
        """Make a request with the credentials of ``call``, the browser's request. Return the reply.

        ``target`` is a percent-encoded path with an optional query. ``body`` is sent as JSON, bytes are sent as they
        are, None is sent as an empty body, and the pieces of an iterator as the operation reads them. Unless
        ``keep_body``, the reply is returned without its body, which may be as large as a code package. Raises the error
        of the operation if it is refused.
        """
        if not isinstance(body, AsyncIterator):
            body = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        received, receive = _Reply(keep_body=keep_body), _Body(body).receive
        scope = _scope(call.scope, method, target, ((b"content-type", JSON), *headers))
        if (mount := self._plugins.find(scope["path"])) is not None:
            await self._plugins.serve(mount, scope, receive, received.send)
            return received.checked()
        invocation = self._invocations.find(scope, dict(scope["headers"]), receive)
        if invocation is None:
            await self._router(scope, receive, received.send)
            if ERROR in scope:
                raise scope[ERROR]
            return received.checked()
        reply = await invocation
        await received.send({"status": reply.status, "headers": reply.headers})
        await received.send({"body": reply.body})
        return received.checked()


class _Body:
    """Sender of the ASGI messages of a request, whose client never disconnects."""

    def __init__(self, body: bytes | AsyncIterator[bytes]) -> None:
        self._body, self._ended = body, False

    async def receive(self) -> Message:
        if self._ended:
            await anyio.sleep_forever()
        if isinstance(self._body, bytes):
            piece, self._ended = self._body, True
        else:
            piece = await anext(self._body, b"")
            self._ended = not piece
        return {"type": "http.request", "body": piece, "more_body": not self._ended}


class _Reply:
    """Receiver of the ASGI messages of a reply."""

    def __init__(self, *, keep_body: bool) -> None:
        self._status, self._headers, self._pieces = 500, dict[bytes, bytes](), list[bytes]()
        self._keep_body = keep_body

    async def send(self, message: Message) -> None:
        if "status" in message:
            self._status, self._headers = message["status"], dict(message["headers"])
        elif self._keep_body or self._status >= 400:
            self._pieces.append(message.get("body", b""))

    def checked(self) -> ApiReply:
        """Return the reply. Raises a FunctiondError if its status is that of an error."""
        reply = ApiReply(status=self._status, headers=self._headers, body=b"".join(self._pieces))
        if reply.status >= 400:
            raise _error(reply)
        return reply


def _error(reply: ApiReply) -> FunctiondError:
    """Return the error in a reply that an operation made without raising it."""
    message = reply.read(dict[str, Any]).get("error_msg", "the request failed")
    return InvalidRequest(message) if reply.status < status_of(FunctiondError) else Unavailable(message)


def _scope(scope: Scope, method: str, target: str, headers: HeaderPairs) -> Scope:
    path, _, query = target.partition("?")
    return {
        **{key: value for key, value in scope.items() if key not in _OWN},
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode("ascii"),
        "root_path": "",
        "query_string": query.encode("ascii"),
        "headers": list(headers),
    }
