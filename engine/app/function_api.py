"""API for functions, at a port of its own on loopback, where each request needs the token of an instance."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager

from engine.asgi.admission import ChooseApp
from engine.asgi.loopback import open_sockets
from engine.asgi.peers import Address, PeerUsers
from engine.asgi.wire import App


@asynccontextmanager
async def function_sockets(role: str) -> AsyncIterator[list[socket.socket]]:
    """Listen for functions before the first of them starts. Yield no sockets if they may not use the API."""
    sockets = [] if role == "none" else await open_sockets("127.0.0.1", 0)
    try:
        yield sockets
    finally:
        for each in sockets:
            each.close()


def port_of(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1]) if sockets else 0


@contextmanager
def app_by_user(uids: range, app: App, for_functions: App) -> Iterator[ChooseApp]:
    """Yield the choice of the application for a connection to the API, without credentials: functions have another.

    The user of a connection that is closed already is not known; it may have been a function.
    """

    def choose(client: Address | None, server: Address | None) -> App:
        try:
            uid = users.uid_of(client, server) if client and server else None
        except OSError:
            uid = None
        return for_functions if uid is None or uid in uids else app

    with closing(PeerUsers()) as users:
        yield choose
