"""Sockets that serve HTTP/1.1 on the caller's event loop.

A listener is only a socket and its connections. It has no timer of its own, so an idle engine sleeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from engine.asgi.connection import Connection
from engine.asgi.heads import HEAD_LIMIT as HEAD_LIMIT
from engine.asgi.listener_state import ListenerState
from engine.asgi.loopback import BACKLOG, open_sockets, refusal
from engine.asgi.tls import HANDSHAKE_TIMEOUT, ServerTls
from engine.asgi.wire import App

HANDSHAKE_END = 1.0  #: seconds that a closing listener waits for unfinished handshakes


@asynccontextmanager
async def listen(
    app: App,
    host: str,
    port: int,
    *,
    grace: float = 5.0,
    keep_alive: float = 75,
    connections: int = 8192,
    held_limit: int = 256 << 20,
    tls: ServerTls | None = None,
) -> AsyncIterator[int]:
    """Serve ``app`` until the block ends. Yield the port; if ``port`` is 0, the system chooses a free one.

    A listener that clients may reach as ``localhost`` has both loopback addresses (``loopback``).

    When the block ends, no further connection is accepted, and running requests have ``grace`` seconds to end. The
    remaining ones are cancelled. A cancelled request has another ``grace`` seconds to send a reply before its
    connection is aborted.

    A client must send a complete head (request line and headers) within ``keep_alive`` seconds. The same time may pass
    between two packets of a body, and a client must take some bytes of a response within it. If more than
    ``connections`` are open, new ones are rejected with 503. A request whose body spans several packets is rejected
    with 503 if the unanswered requests of this kind together exceed ``held_limit`` bytes. Clients that do not read are
    cut if their responses together exceed the same limit. With ``tls``, the listener speaks TLS only. Raises
    SettingsError if the address cannot be bound.
    """
    state = ListenerState(app, keep_alive=keep_alive, connection_limit=connections, held_limit=held_limit)
    servers = await _open(lambda: Connection(state), host, port, tls)
    try:
        yield servers[0].sockets[0].getsockname()[1]
    finally:
        with anyio.CancelScope(shield=True):
            await _end(servers, state, grace)


async def _open(
    make: Callable[[], asyncio.Protocol], host: str, port: int, tls: ServerTls | None
) -> list[asyncio.Server]:
    create = asyncio.get_running_loop().create_server
    more: dict[str, Any] = {"ssl": tls.context, "ssl_handshake_timeout": HANDSHAKE_TIMEOUT} if tls else {}
    if sockets := open_sockets(host, port):
        return [await create(make, sock=one, backlog=BACKLOG, **more) for one in sockets]
    try:
        return [await create(make, host, port, backlog=BACKLOG, **more)]
    except OSError as error:
        raise refusal(host, port, error) from None


async def _end(servers: list[asyncio.Server], state: ListenerState, grace: float) -> None:
    for server in servers:
        server.close()
    for connection in list(state.connections):
        connection.stop()
    with anyio.move_on_after(grace):
        await state.idle.wait()
        while state.tasks:  # requests of clients that disconnected
            await asyncio.wait(set(state.tasks))
    for task in state.tasks:
        task.cancel()
    if state.tasks:  # a cancelled request may still send its reply
        await asyncio.wait(set(state.tasks), timeout=grace)
    for connection in list(state.connections):
        connection.cut(reset=False)
    while state.tasks:
        for task in state.tasks:
            task.cancel()
        await asyncio.wait(set(state.tasks))
    await state.idle.wait()
    # Connections in their TLS handshake are in no list yet. Python 3.12 and newer wait for them.
    for server in servers:
        getattr(server, "abort_clients", lambda: None)()  # since Python 3.13
    with anyio.move_on_after(HANDSHAKE_END):
        for server in servers:
            await server.wait_closed()
