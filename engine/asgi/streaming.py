"""Streamed replies: bodies that are written piece by piece until they are complete or the client disconnects.

Streams of server-sent events use this module (format: HTML standard, 9.2). Libraries for this format check several
times a second whether the server is stopping. The engine's listener cancels running requests when it stops, so no such
check is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import structlog

from engine.asgi.wire import NO_STORE, Receive, Reply, Send

EVENTS = b"text/event-stream"
HEARTBEAT = b": still here\n\n"  #: a comment, so that proxies do not close an idle connection
UNBUFFERED = (b"x-accel-buffering", b"no")  #: header of streams of events, so that nginx passes each on at once

log = structlog.get_logger("functiond")

Write = Callable[[bytes], Awaitable[None]]


class Stream(Reply, frozen=True, kw_only=True):
    """Reply whose body is written by calls of the function that ``run`` receives.

    ``run`` is cancelled when the client disconnects.
    """

    run: Callable[[Write], Awaitable[None]]


def event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


async def stream(receive: Receive, send: Send, reply: Stream) -> None:
    """Send status and headers of ``reply``, then each piece of the body as ``reply.run`` writes it.

    An error raised by ``run`` is logged, and the body ends early: the status can no longer be changed.
    """
    headers = [*reply.headers, (b"content-type", reply.content_type), *NO_STORE]
    if reply.content_type == EVENTS:
        headers.append(UNBUFFERED)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def write(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def cancel_on_disconnect(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_disconnect, tasks.cancel_scope)
            await reply.run(write)
            tasks.cancel_scope.cancel()
    except asyncio.CancelledError:
        pass  # only a stopping listener cancels a request, and it waits for the end of the body
    except Exception:
        log.exception("stream failed")
    await send({"type": "http.response.body", "body": b""})
