"""uvicorn in our loop, as a resource that owns its port: its HTTP protocol without its server.

``uvicorn.Server`` takes the signals and wakes up ten times a second to look at flags; here the listening socket and
the connections are all there is, so an idle server sleeps. Without that tick there is no Date header to refresh: it
is left off, as RFC 9110 allows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from uvicorn import Config

from engine.asgi.connection import HEAD_LIMIT as HEAD_LIMIT
from engine.asgi.connection import Connection, ListenerState
from engine.errors import SettingsError
from engine.protocols import WHOLE_REPLY as WHOLE_REPLY

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BACKLOG = 2048


@asynccontextmanager
async def listen(
    app: App,
    host: str,
    port: int,
    *,
    grace: float = 5.0,
    keep_alive: int = 75,
    connections: int = 8192,
    held_limit: int = 256 << 20,
) -> AsyncIterator[int]:
    """Serve ``app`` until the block is left; gives the port, which is a free one for ``port`` 0.

    Leaving closes the door first, then lets running requests finish for ``grace`` seconds; what is left is
    cancelled, and cut off if it needs longer than that again to say so.
    A client has ``keep_alive`` seconds for a head, and between two packets of a body. More than so many connections,
    or bytes of unanswered requests that came in more than one packet, are refused with 503.
    Raises SettingsError if the address cannot be had.
    """
    config = Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=keep_alive,
    )
    config.load()
    state = ListenerState(connection_limit=connections, held_limit=held_limit)
    server = await _open(lambda: Connection(config=config, server_state=state, app_state={}), host, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        with anyio.CancelScope(shield=True):
            await _end(server, state, grace)


async def _open(make: Callable[[], asyncio.Protocol], host: str, port: int) -> asyncio.Server:
    # localhost has two addresses, which would get two different free ports.
    host = "127.0.0.1" if host == "localhost" else host
    try:
        server = await asyncio.get_running_loop().create_server(make, host, port, backlog=BACKLOG)
    except OSError as error:
        problem = error.strerror or str(error)
        raise SettingsError(f"cannot listen on {host} port {port} ({problem}): choose another --port") from None
    return server


async def _end(server: asyncio.Server, state: ListenerState, grace: float) -> None:
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    with anyio.move_on_after(grace):
        await state.idle.wait()
        while state.tasks:  # of callers that went away
            await asyncio.wait(set(state.tasks))
    for task in state.tasks:
        task.cancel()
    if state.tasks:  # who is cancelled may still say so to its caller
        await asyncio.wait(set(state.tasks), timeout=grace)
    for connection in list(state.connections):
        connection.transport.abort()
    while state.tasks:
        for task in state.tasks:
            task.cancel()
        await asyncio.wait(set(state.tasks))
    await state.idle.wait()
    await server.wait_closed()
