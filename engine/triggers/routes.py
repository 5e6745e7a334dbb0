"""HTTP routes of plugins.

The API's listener serves paths below ``/triggers/`` and the vendor's API paths. Plugins may also open separate
listeners.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from engine import errors as e
from engine.asgi.listener import Receive, Scope, Send, listen
from engine.protocols import EVENT_LIMIT, AsgiApp, Operation, PushHandler, PushReply, PushRequest

PREFIX = "/triggers/"
#: Key of the ASGI scope in which the API stores the project of verified credentials.
PROJECT = "functiond.project"
#: Seconds that running requests get to finish when a listener closes.
GRACE = 1.0

log = structlog.get_logger("functiond.triggers")

_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (e.PayloadTooLarge, 413, "FSS.0413"),
    (e.InvalidRequest, 400, "FSS.0400"),
    (e.NotFound, 404, "FSS.0404"),
    (e.Conflict, 409, "FSS.0409"),
    (e.Forbidden, 403, "FSS.0403"),
    (e.Unauthorized, 401, "FSS.0401"),
    (e.FunctionDisabled, 429, "FSS.0429"),
    (e.Overloaded, 429, "FSS.0429"),
    (e.Unavailable, 503, "FSS.0503"),
    (e.CallTimedOut, 504, "FSS.0504"),
)


class Mount(Struct, kw_only=True, eq=False):
    path: str
    app: AsgiApp
    signed: bool
    operations: Sequence[Operation] = ()


class Mounts:
    """ASGI applications of all plugins, by the path that each serves."""

    def __init__(self) -> None:
        self._by_path: dict[str, list[Mount]] = {}

    def add(self, mount: Mount) -> None:
        self._by_path.setdefault(mount.path, []).append(mount)

    def remove(self, mount: Mount) -> None:
        mounts = self._by_path[mount.path]
        mounts.remove(mount)
        if not mounts:
            del self._by_path[mount.path]

    def operations(self) -> Sequence[Operation]:
        """Return the API operations that plugins serve at their paths, sorted by name."""
        mounts = [mount for mounts in self._by_path.values() for mount in mounts]
        return sorted((one for mount in mounts for one in mount.operations), key=lambda one: one.name)

    def find(self, path: str) -> Mount | None:
        """Return the application for a request's path, or None if no plugin serves the path.

        Below ``/triggers/``, the longest served path that is equal to ``path`` or above it is used. For vendor paths
        (``/v…``), version and first word after the project are compared: ``v2/streams``. If several applications serve
        the same path, the latest is returned.
        """
        if path.startswith("/v"):
            _, version, _, word, *_ = (*path.split("/", 4), "", "")
            mounts = self._by_path.get(f"{version}/{word}")
            return mounts[-1] if mounts else None
        while path.startswith(PREFIX):
            if mounts := self._by_path.get(path):
                return mounts[-1]
            path = path.rpartition("/")[0]
        return None


class PluginRoutes:
    """HTTP routes of one plugin. A route exists until the block that adds it ends."""

    def __init__(self, mounts: Mounts, plugin: str) -> None:
        self._mounts, self._prefix = mounts, PREFIX + plugin

    @contextmanager
    def mount(
        self,
        path: str,
        handler: PushHandler,
        *,
        signed: bool = False,
        operations: Sequence[Operation] = (),
        limit: int = EVENT_LIMIT,
    ) -> Iterator[str]:
        whole = self._prefix + path.rstrip("/")
        mount = Mount(path=whole, app=_App(handler, limit, len(whole)), signed=signed, operations=operations)
        self._mounts.add(mount)
        try:
            yield whole
        finally:
            self._mounts.remove(mount)

    @contextmanager
    def claim(
        self, *heads: str, handler: PushHandler, operations: Sequence[Operation] = (), limit: int = EVENT_LIMIT
    ) -> Iterator[None]:
        mounts = [Mount(path=head, app=_App(handler, limit, 0), signed=True) for head in heads]
        mounts[0].operations = operations
        for mount in mounts:
            self._mounts.add(mount)
        try:
            yield
        finally:
            for mount in mounts:
                self._mounts.remove(mount)

    def listen(self, app: AsgiApp, host: str, port: int) -> AbstractAsyncContextManager[int]:
        return listen(app, host, port, grace=GRACE)

    def app(self, handler: PushHandler, *, limit: int = EVENT_LIMIT) -> AsgiApp:
        return _App(handler, limit, 0)


class _App:
    """ASGI application that calls a plugin's handler for each request.

    Converts exceptions of the handler, and a body that is too long, to error replies.
    """

    def __init__(self, handler: PushHandler, limit: int, skip: int) -> None:
        self._handler, self._limit, self._skip = handler, limit, skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive, dict(scope["headers"]).get(b"content-length", b"0"), self._limit)
            if body is None:
                return  # the client has disconnected
            reply = await self._handler(_request(scope, body, self._skip))
        except e.FunctiondError as error:
            reply = _error_reply(error)
        except Exception:
            log.exception("push failed", method=scope["method"], path=scope["path"])
            reply = _problem(500, "FSS.0500", "internal error: see the engine's log")
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body))]
        if reply.body:
            headers.append((b"content-type", reply.content_type))
        if reply.status >= 400:  # the vendor's SDKs read it, as from the API's own errors
            headers.append((b"x-request-id", str(uuid.uuid4()).encode()))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _request(scope: Scope, body: bytes, skip: int) -> PushRequest:
    client = scope.get("client")
    return PushRequest(
        method=scope["method"],
        path=scope["path"][skip:],
        query=scope["query_string"].decode("latin-1"),
        headers=dict(scope["headers"]),
        body=body,
        client=client[0] if client else "",
        project=scope.get(PROJECT, ""),
    )


async def _read(receive: Receive, declared: bytes, limit: int) -> bytes | None:
    """Return the whole body of a request, or None if the client has disconnected.

    Raises PayloadTooLarge if the body is longer than ``limit`` bytes.
    """
    body, more = bytearray(), True
    while more:
        if max(len(body), int(declared)) > limit:
            raise e.PayloadTooLarge(limit)
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if len(body) > limit:
        raise e.PayloadTooLarge(limit)
    return bytes(body)


def _error_reply(error: e.FunctiondError) -> PushReply:
    status, code = next(((s, c) for kind, s, c in _STATUS if isinstance(error, kind)), (500, "FSS.0500"))
    retry = isinstance(error, e.Overloaded | e.Unavailable | e.FunctionDisabled)
    headers = ((b"retry-after", b"%d" % error.retry_after),) if retry else ()  # type: ignore[attr-defined]
    return _problem(status, code, str(error), headers)


def _problem(status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> PushReply:
    body = msgspec.json.encode({"error_code": code, "error_msg": message})
    return PushReply(status=status, body=body, headers=headers)
