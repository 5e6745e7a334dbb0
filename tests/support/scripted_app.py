"""Application that answers as the path of a request says, and records what it receives."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import structlog.testing

from engine.asgi.wire import Receive, Reply, Scope, Send, respond

#: Request that is not recorded. Its answer shows that a connection is still open.
PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class ScriptedApp:
    """Application whose answer depends on the path.

    /401 and other statuses: this status, without reading the body. /early: a part of the answer before the body is
    read. /parts: the body in an answer without length. /midway: such an answer that fails after its first part. /hold:
    the body, once ``release`` is set. /raise and /silent: no answer. All others: the body.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, bytes | None]] = []  #: method and target, and the body; None if it was aborted
        self.fields: list[list[tuple[bytes, bytes]]] = []  #: of each request in ``seen``
        self.events: list[str] = []  #: what happened to requests to /hold
        self.entered, self.release, self.disconnected = anyio.Event(), anyio.Event(), anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, target = scope["path"], scope["raw_path"]
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        self.entered.set()
        if path[1:].isdigit():
            self._record(scope, target, b"")
            await respond(scope, send, Reply(status=int(path[1:]), body=b"{}"))
            return
        if path == "/early":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"early", "more_body": True})
        body = await _whole(receive)
        if path != "/probe":
            self._record(scope, target, body)
        if body is None:
            return
        await self._answer(path, scope, receive, send, body)

    def _record(self, scope: Scope, target: bytes, body: bytes | None) -> None:
        self.seen.append((f"{scope['method']} {target.decode('latin-1')}", body))
        self.fields.append(list(scope["headers"]))

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        if path == "/hold":
            await self._hold(receive)
        elif path == "/raise":
            raise RuntimeError("as the path says")
        elif path == "/silent":
            return
        elif path in ("/parts", "/midway"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for part in (body[:1], body[1:]):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                if path == "/midway":
                    raise RuntimeError("as the path says")
            await send({"type": "http.response.body", "body": b""})
            return
        elif path == "/early":
            await send({"type": "http.response.body", "body": b"late"})
            return
        await respond(scope, send, Reply(body=body, content_type=b"text/plain"))

    async def _hold(self, receive: Receive) -> None:
        """Wait until ``release`` is set. Record a disconnect that is received before."""

        async def listen_for_disconnect() -> None:
            self.events.append((await receive())["type"])
            self.disconnected.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen_for_disconnect)
            await self.release.wait()
            tasks.cancel_scope.cancel()


async def _whole(receive: Receive) -> bytes | None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body, more = body + message["body"], message["more_body"]
    return body


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


def _is_problem(entry: MutableMapping[str, Any]) -> bool:
    if entry["event"] == "event loop held":  # a busy machine holds the loop as well
        return False
    return entry["log_level"] in ("warning", "error", "critical")


@contextmanager
def problems() -> Iterator[list[str]]:
    """Yield a list that contains all warnings and errors that were logged, once the block has ended."""
    told: list[str] = []
    handler = _Errors()
    logging.getLogger().addHandler(handler)
    try:
        with structlog.testing.capture_logs() as entries:
            yield told
    finally:
        logging.getLogger().removeHandler(handler)
    shown: list[Any] = [entry for entry in entries if _is_problem(entry)]
    told += [*handler.texts, *map(str, shown)]


@asynccontextmanager
async def no_problems() -> AsyncIterator[None]:
    """Fail if a warning or an error is logged in the block."""
    with problems() as logged:
        yield
    assert not logged, logged
