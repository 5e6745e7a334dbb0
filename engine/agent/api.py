"""API of the engine for functions on this node: a listener on loopback, whose connections go through the agent's.

A connection is a stream with a number of its own. Each end sends at most ``WINDOW`` bytes that the other has not
passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress

from engine.executors.nodes.connection import PIECE, STREAM, Connection
from engine.executors.nodes.messages import StreamRead, send

WINDOW = 256 << 10  #: bytes on their way, in each direction of a stream
_MOST = 256  #: streams


class Streams:
    """Streams of this node, by their numbers."""

    def __init__(self, connection: Connection, numbers: Iterator[int]) -> None:
        self._connection, self._numbers = connection, numbers
        self._streams: dict[int, _Stream] = {}

    async def open(self) -> int:
        """Listen on a free port of loopback, and return it."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def received(self, number: int, data: bytes) -> None:
        if number in self._streams:
            self._streams[number].arrived.put_nowait(data)

    def read(self, number: int, size: int) -> None:
        if number in self._streams:
            self._streams[number].acknowledge(size)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._streams) >= _MOST:
            writer.transport.abort()
            return
        number = next(self._numbers)
        stream = self._streams[number] = _Stream(self._connection, number)
        try:
            await asyncio.gather(stream.send_all(reader), stream.write_all(writer))
        finally:
            del self._streams[number]
            writer.close()


class _Stream:
    """One connection of a function. Either direction ends by itself; one that fails ends, too, and drops the rest."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self._number = connection, number
        self.arrived = asyncio.Queue[bytes]()
        self._unread = 0
        self._room = asyncio.Event()

    def acknowledge(self, size: int) -> None:
        self._unread -= size
        self._room.set()

    async def send_all(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                self._unread += len(data)
                self._connection.send(STREAM, self._number, data)
                while self._unread > WINDOW - PIECE:
                    self._room.clear()
                    await self._room.wait()
        self._connection.send(STREAM, self._number, b"")

    async def write_all(self, writer: asyncio.StreamWriter) -> None:
        while data := await self.arrived.get():
            if not writer.is_closing():  # otherwise the function has dropped the connection
                with suppress(OSError):
                    writer.write(data)
                    await writer.drain()
            send(self._connection, StreamRead(self._number, len(data)))
        if not writer.is_closing():
            writer.write_eof()
