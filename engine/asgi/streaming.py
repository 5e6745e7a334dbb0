"""A reply that is written piece by piece, until it has ended or its reader has gone.

Events go out in the format of server-sent events (HTML standard, 9.2). The libraries for it look for the end of
uvicorn's own server several times a second; here the listener cancels the request instead, so that nothing polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import msgspec
import structlog

from engine.asgi.listener import Receive, Send
from engine.asgi.wire import Reply

EVENTS = b"text/event-stream"
HEARTBEAT = b": still here\n\n"  #: a comment, so that whoever sits between does not close the connection

log = structlog.get_logger("functiond")

Write = Callable[[bytes], Awaitable[None]]


class Stream(Reply, frozen=True, kw_only=True):
    """``run`` writes the body; it is cancelled when nobody reads any more."""

    run: Callable[[Write], Awaitable[None]]


def event(name: str, data: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


async def stream(receive: Receive, send: Send, reply: Stream) -> None:
    """Whatever goes wrong once it has begun ends the body early: there is no other answer any more."""
    headers = [*reply.headers, (b"content-type", reply.content_type), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def write(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def until_gone(scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until_gone, tasks.cancel_scope)
            await reply.run(write)
            tasks.cancel_scope.cancel()
    except asyncio.CancelledError:
        pass  # only the listener cancels, at its end, and it waits for the last words
    except Exception:
        log.exception("stream failed")
    await send({"type": "http.response.body", "body": b""})
