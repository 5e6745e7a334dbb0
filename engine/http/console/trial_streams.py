"""Live log of a synchronous test run, as server-sent events: its lines while it runs, then the page with its end.

Lines of other requests are left out. The run has a trace context of its own, which the lines carry.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable

import anyio

from engine.asgi.streaming import EVENTS, HEARTBEAT, Stream, Write, event
from engine.asgi.wire import HeaderPairs, Reply
from engine.errors import FunctiondError
from engine.http.console.log_lines import shown_lines
from engine.http.console.pages import HEADERS
from engine.http.live_logs import Batch, LogQueue
from engine.logs.feed import FunctionLines, LogFeed
from engine.model import Function
from engine.model.trace import HEADER, TraceContext

PAUSE = 0.1  #: seconds between two messages of a stream

#: Runs the function with further headers of the request, and returns the page with the end of the run.
Run = Callable[[HeaderPairs], Awaitable[Reply]]


def trial_stream(feed: LogFeed, function: Function, run: Run) -> Stream:
    """Return a stream that carries out ``run``, with the lines that ``function`` writes meanwhile for this run."""
    return Stream(content_type=EVENTS, headers=HEADERS, run=lambda write: _follow(feed, function, run, write))


async def _follow(feed: LogFeed, function: Function, run: Run, write: Write) -> None:
    trace = str(TraceContext(secrets.token_hex(16), secrets.token_hex(8), sampled=True))
    queue = LogQueue()

    def put(batch: FunctionLines) -> None:
        if batch.trace == trace:
            queue.put(batch)

    with feed.subscribed(put, function_id=function.function_id):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_pass_on, queue, write)
            end = await _end_of(run, ((HEADER, trace.encode()),))
            queue.end()
    await write(end)


async def _end_of(run: Run, headers: HeaderPairs) -> bytes:
    """Return the last event: the page after the run, or the message of an error that no page shows."""
    try:
        reply = await run(headers)
    except FunctiondError as error:
        return event("failed", str(error))
    return event("end", reply.body.decode())


async def _pass_on(queue: LogQueue, write: Write) -> None:
    """Write the lines of the queue until it has ended."""

    async def send(batch: Batch) -> None:
        await write(event("lines", list(shown_lines(batch.lines, batch.request_id))))

    await write(HEARTBEAT)
    await queue.pass_on(write, send, PAUSE)
