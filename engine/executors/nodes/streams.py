"""Connections of functions on one node to the API of the engine."""

from __future__ import annotations

import asyncio

from engine.executors.nodes import messages
from engine.executors.nodes.connection import STREAM, Connection

UNREAD = 256 << 10  #: bytes in each direction that were sent and not acknowledged
_MOST = 256  #: streams of a node


class Streams:
    """Streams of one node. Each is a connection to ``port`` on loopback, where requests need a function's token."""

    def __init__(self, connection: Connection, port: int) -> None:
        self._connection, self._port = connection, port
        self._streams: dict[int, _Stream] = {}
        self._full = False

    def received(self, number: int, data: bytes) -> None:
        """Pass data on. The first data of a stream opens it; an empty text is the end of what the function sends."""
        stream = self._streams.get(number)
        if stream is None:
            if not data:
                return
            if not self._port or len(self._streams) >= _MOST:
                self._connection.send(STREAM, number, b"")
                return
            stream = self._streams[number] = _Stream(self._connection, number, self._streams, self._port)
        stream.write(data)

    def acknowledged(self, number: int, size: int) -> None:
        if (stream := self._streams.get(number)) is not None:
            stream.acknowledged(size)

    def pause(self, is_full: bool) -> None:
        """Read no responses of the API while the connection to the node is full."""
        for stream in self._streams.values():
            stream.pause(is_full)

    def close(self) -> None:
        for stream in list(self._streams.values()):
            stream.abort()


class _Stream(asyncio.Protocol):
    """Connection to the API for one connection of a function."""

    def __init__(self, connection: Connection, number: int, streams: dict[int, _Stream], port: int) -> None:
        self._connection, self._number, self._streams = connection, number, streams
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []  #: data that arrived before the connection to the API
        self._sent = self._unread = 0  #: bytes that are not acknowledged, from the function and to it
        self._full = False
        self._opening = asyncio.ensure_future(self._open(port))

    async def _open(self, port: int) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", port)
        except OSError:
            self.connection_lost(None)

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            self._early.append(data)
        elif not data:
            if transport.can_write_eof():
                transport.write_eof()
        else:
            transport.write(data)
            self._sent += len(data)
            if transport.get_write_buffer_size() < UNREAD // 2:
                self.resume_writing()

    def acknowledged(self, size: int) -> None:
        self._unread -= size
        self._read_if_room()

    def pause(self, is_full: bool) -> None:
        self._full = is_full
        self._read_if_room()

    def abort(self) -> None:
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._streams.pop(self._number, None)

    def _read_if_room(self) -> None:
        if self._transport is not None:
            if self._full or self._unread >= UNREAD:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(UNREAD // 2)
        early, self._early = self._early, []
        for data in early:
            self.write(data)

    def data_received(self, data: bytes) -> None:
        self._connection.send(STREAM, self._number, data)
        self._unread += len(data)
        self._read_if_room()

    def resume_writing(self) -> None:
        if self._sent:
            messages.send(self._connection, messages.StreamRead(self._number, self._sent))
            self._sent = 0

    def connection_lost(self, error: Exception | None) -> None:
        if self._streams.pop(self._number, None) is not None:
            self._connection.send(STREAM, self._number, b"")
