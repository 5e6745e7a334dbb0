"""API of the engine for functions on this node: listeners of this machine, whose connections go through the agent's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from engine.executors.nodes.connection import PIECE
from engine.executors.nodes.streams import MOST, Streams


class ApiListener:
    """Listener whose connections are streams. ``numbers`` are those of new streams."""

    def __init__(self, streams: Streams, numbers: Iterator[int]) -> None:
        self._streams, self._numbers = streams, numbers
        self._servers: list[asyncio.Server] = []  #: which would end without a reference

    async def open(self) -> int:
        """Listen on a free port of loopback, and return it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def add(self, listening: socket.socket) -> None:
        """Listen on a Unix socket, too."""
        self._servers.append(await asyncio.start_unix_server(self._serve, sock=listening, limit=PIECE))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._streams) >= MOST:
            writer.transport.abort()
            return
        number = next(self._numbers)
        self._streams.open(number)
        await self._streams.carry(number, reader, writer)
