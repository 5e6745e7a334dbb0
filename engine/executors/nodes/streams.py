"""Connections of functions on a node to the API of the engine, as streams on the connection of the node.

The agent accepts the connections, and the engine opens one to the API for each. Each end sends at most ``WINDOW`` bytes
that the other has not passed on.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress

from engine.executors.nodes import messages
from engine.executors.nodes.connection import PIECE, STREAM, Connection, ProtocolError

WINDOW = 256 << 10  #: bytes on their way, in each direction of a stream
MOST = 256  #: streams of a node at the agent


class Streams:
    """Streams of one node, by their numbers, at either end. A stream keeps at most ``most`` bytes that arrived."""

    def __init__(self, connection: Connection, most: float = math.inf) -> None:
        self._connection, self._most = connection, most
        self._streams: dict[int, _Stream] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def open(self, number: int) -> None:
        """Keep what arrives for a stream until ``carry``."""
        self._streams[number] = _Stream(self._connection, number)

    def received(self, number: int, data: bytes) -> bool:
        """Pass on data of the other end; no data is its end. Return False if there is no such stream."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.kept += len(data)
            if stream.kept > self._most:
                raise ProtocolError("it sent too much of a stream")
            stream.arrived.put_nowait(data)
        return stream is not None

    def acknowledged(self, number: int, size: int) -> None:
        if number in self._streams:
            self._streams[number].acknowledge(size)

    async def carry(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> None:
        """Carry the data of a connection as those of an open stream, until both directions have ended.

        Without ``writer``, what arrives is dropped.
        """
        stream = self._streams[number]
        try:
            await asyncio.gather(stream.send_all(reader), stream.write_all(writer))
        finally:
            self.close(number)
            if writer is not None:
                writer.close()

    def close(self, number: int) -> None:
        """End a stream, if it is open."""
        if self._streams.pop(number, None) is not None:
            self._connection.send(STREAM, number, b"")


class ApiStreams:
    """Streams of a node at the engine. ``port`` on loopback is that of the API, with tokens of functions; 0: none."""

    def __init__(self, connection: Connection, port: int) -> None:
        self._connection, self._port, self._streams = connection, port, Streams(connection, WINDOW)
        self._tasks: set[asyncio.Task[None]] = set()
        self.acknowledged = self._streams.acknowledged

    def received(self, number: int, data: bytes) -> None:
        """Pass on data of a function. The first of them opens the stream."""
        if self._streams.received(number, data) or not data:
            return
        if not self._port or len(self._streams) >= 2 * MOST:  # some may have ended at the agent already
            raise ProtocolError("it opened too many streams")
        self._streams.open(number)
        self._streams.received(number, data)
        task = asyncio.ensure_future(self._carry(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _carry(self, number: int) -> None:
        reader, writer = asyncio.StreamReader(), None
        reader.feed_eof()
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=PIECE)
        await self._streams.carry(number, reader, writer)


class _Stream:
    """One stream. Either direction ends by itself; one that fails ends, too, and drops the rest."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self._number = connection, number
        self.arrived, self.kept = asyncio.Queue[bytes](), 0  #: and their bytes
        self._unread = 0
        self._read = asyncio.Event()

    def acknowledge(self, size: int) -> None:
        self._unread -= size
        self._read.set()

    async def send_all(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(PIECE):
                await self._connection.room()
                self._unread += len(data)
                self._connection.send(STREAM, self._number, data)
                while self._unread > WINDOW - PIECE:
                    self._read.clear()
                    await self._read.wait()
        self._connection.send(STREAM, self._number, b"")

    async def write_all(self, writer: asyncio.StreamWriter | None) -> None:
        while data := await self.arrived.get():
            if writer is not None and not writer.is_closing():  # otherwise the API has dropped the connection
                with suppress(OSError):
                    writer.write(data)
                    await writer.drain()
            self.kept -= len(data)
            messages.send(self._connection, messages.StreamRead(self._number, len(data)))
        if writer is not None and not writer.is_closing():
            writer.write_eof()
