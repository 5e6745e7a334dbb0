"""Sockets that serve HTTP/1.1 on the caller's event loop.

A listener is only its sockets and their connections. It has no timer of its own, so an idle engine sleeps.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from engine.asgi.acceptor import Acceptor
from engine.asgi.admission import ClientRules
from engine.asgi.connection import Connection
from engine.asgi.heads import HEAD_LIMIT as HEAD_LIMIT
from engine.asgi.listener_state import ListenerState
from engine.asgi.loopback import open_sockets
from engine.asgi.tls import ServerTls
from engine.asgi.wire import App


@asynccontextmanager
async def listen(
    app: App,
    host: str,
    port: int,
    *,
    grace: float = 5.0,
    keep_alive: float = 75,
    held_limit: int = 256 << 20,
    rules: ClientRules | None = None,
    tls: ServerTls | None = None,
    sockets: list[socket.socket] | None = None,
) -> AsyncIterator[int]:
    """Serve ``app`` until the block ends. Yield the port; if ``port`` is 0, the system chooses a free one.

    A listener that clients may reach as ``localhost`` has both loopback addresses (``loopback``).

    When the block ends, no further connection is accepted, and running requests have ``grace`` seconds to end. The
    remaining ones are cancelled. A cancelled request has another ``grace`` seconds to send a reply before its
    connection is aborted.

    A client must send a complete head (request line and headers) within ``keep_alive`` seconds. The same time may pass
    between two packets of a body, and a client must take some bytes of a response within it. ``rules`` limit the
    connections and the time for a whole body. A request whose body spans several packets is rejected with 503 if the
    unanswered requests of this kind together exceed ``held_limit`` bytes. Clients that do not read are cut if their
    responses together exceed the same limit. With ``tls``, the listener speaks TLS only. ``sockets`` are
    those of the listener if they are open already. Raises SettingsError if the address cannot be bound.
    """
    rules = rules or ClientRules()
    state = ListenerState(app, keep_alive=keep_alive, held_limit=held_limit, rules=rules)
    sockets = sockets or await open_sockets(host, port)
    acceptor = Acceptor(sockets, lambda admission: Connection(state, admission), rules, tls)
    try:
        yield acceptor.port
    finally:
        with anyio.CancelScope(shield=True):
            await _end(acceptor, state, grace)


async def _end(acceptor: Acceptor, state: ListenerState, grace: float) -> None:
    await acceptor.close()
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
