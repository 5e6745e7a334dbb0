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

from engine.asgi.wire import HALF_CLOSED, NO_STORE, RELEASE, Receive, Reply, Send

EVENTS = b"text/event-stream"
HEARTBEAT = b": still here\n\n"  #: a comment, so that proxies do not close an idle connection
#: Heartbeats to a client that has ended its side, with seconds between them: the second one fails if it has gone.
PROBES, PROBE_PAUSE = 2, 1.0
UNBUFFERED = (b"X-Accel-Buffering", b"no")  #: header of streams of events, so that nginx passes each on at once

log = structlog.get_logger("functiond")

Write = Callable[[bytes], Awaitable[None]]


class Stream(Reply, frozen=True, kw_only=True):
    """Reply whose body is written by calls of the function that ``run`` receives.

    ``run`` is cancelled when the connection is lost. A client that has only ended its side gets the whole reply.
    """

    run: Callable[[Write], Awaitable[None]]


def event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


async def until_disconnected(
    receive: Receive, work: Awaitable[object], on_half_close: Callable[[], Awaitable[None]] | None = None
) -> None:
    """Wait for ``work``, but no longer than the connection lasts.

    If the client ends its side of the connection, ``on_half_close`` is called; without it, the wait ends.
    """

    async def watch(scope: anyio.CancelScope) -> None:
        while (message := await receive())["type"] != "http.disconnect" or (on_half_close and HALF_CLOSED in message):
            if RELEASE in message:  # part of a body that nobody reads
                message[RELEASE](len(message["body"]))
            elif on_half_close and HALF_CLOSED in message:
                await on_half_close()
        scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch, tasks.cancel_scope)
        await work
        tasks.cancel_scope.cancel()


async def stream(receive: Receive, send: Send, reply: Stream) -> None:
    """Send status and headers of ``reply``, then each piece of the body as ``reply.run`` writes it.

    An error raised by ``run`` is logged, and the body ends early: the status can no longer be changed.
    """
    headers = [*reply.headers, (b"Content-Type", reply.content_type), *NO_STORE]
    if reply.content_type == EVENTS:
        headers.append(UNBUFFERED)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def write(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def probe() -> None:
        for _ in range(PROBES if reply.content_type == EVENTS else 0):
            await write(HEARTBEAT)
            await anyio.sleep(PROBE_PAUSE)

    try:
        await until_disconnected(receive, reply.run(write), probe)
    except asyncio.CancelledError:
        pass  # only a stopping listener cancels a request, and it waits for the end of the body
    except Exception:
        log.exception("stream failed")
    await send({"type": "http.response.body", "body": b""})
