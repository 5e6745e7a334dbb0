"""Connection between the engine and an agent: messages of all instances of a node on one stream.

    length u32 | kind u8 | channel u32 | body        (big-endian; ``length`` is that of the body in bytes)

        CONTROL          a message of ``engine.executors.nodes.messages``, in the order of its channel; mostly 0
        FRAMES           part of a stream of frames of ``engine.runtimes.protocol``, to or from the instance ``channel``
        STDOUT, STDERR   raw output of an instance: whole lines, or the rest before an answer
        STREAM           part of a connection of a function to the API of the engine; an empty body is its end
        PACKAGE          part of a code package, in reply to ``Fetch``; an empty body is its end

What is sent during one turn of the event loop is written at once, because each write costs a record of TLS. Streams of
more than ``PIECE`` bytes go out in pieces, those of several channels in turns, so that a large result delays no one.
The messages of one channel keep their order. Channels that the engine opens have even numbers, those of the agent odd
ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from struct import Struct as Layout
from typing import Protocol, cast

from engine.executors.process import CLOSED

CONTROL, FRAMES, STDOUT, STDERR, STREAM, PACKAGE = range(6)  #: kinds
_STREAMS = (FRAMES, STREAM, PACKAGE)

PIECE = 64 << 10  #: bytes of a part of a stream
LONGEST_BODY = 4 * PIECE  #: bytes, except of CONTROL; raw output is not cut
LONGEST_HELLO = 64 << 10  #: bytes of a CONTROL message before the agent has shown its token
LONGEST_CONTROL = 8 << 20  #: bytes; a function's settings are the largest
HIGH, LOW = 1 << 20, 256 << 10  #: unsent bytes at which a connection is full, and is not any more
MOST = 256 << 20  #: unsent bytes, apart from further pieces, at which it is closed

_HEADER = Layout("!IBI")


class ProtocolError(Exception):
    """Message that cannot be understood or is not allowed. The connection must end."""


class ConnectionOwner(Protocol):
    """Receiver of the messages of a connection."""

    def received(self, kind: int, channel: int, body: bytes) -> None:
        """Handle a message. Raises ProtocolError to close the connection."""
        ...

    def closed(self, reason: str) -> None:
        """Handle the end of the connection. Called once."""
        ...


class Connection(asyncio.Protocol):
    """One end of the connection. ``limit`` is the number of bytes that a CONTROL message may have."""

    def __init__(self, owner: ConnectionOwner) -> None:
        self.owner = owner
        self.limit = LONGEST_HELLO
        self.full = False  #: more than ``HIGH`` bytes are unsent, and not less than ``LOW`` since
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest = b""  #: received start of an incomplete message
        self._turn: list[bytes] = []  #: written at the end of this turn of the loop
        self._large: dict[int, deque[bytes]] = {}  #: pieces that follow, by channel; the next channel is first
        self._scheduled = False
        self._room: list[asyncio.Future[None]] = []
        self._reason = ""

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, kind: int, channel: int, data: bytes) -> None:
        """Send data to the other end, in the order of the calls for one channel. Does nothing after the end."""
        if not self.open:
            return
        pieces = self._large.get(channel)
        if len(data) > PIECE and kind in _STREAMS:
            pieces = self._large.setdefault(channel, deque())
            for start in range(0, len(data), PIECE):
                piece = data[start : start + PIECE]
                pieces.append(_HEADER.pack(len(piece), kind, channel) + piece)
        elif pieces is not None:
            pieces.append(_HEADER.pack(len(data), kind, channel) + data)
        else:
            self._turn += (_HEADER.pack(len(data), kind, channel), data)
        self._schedule()

    def discard(self, channel: int) -> None:
        """Drop the pieces of a channel that are not sent yet."""
        self._large.pop(channel, None)

    def unsent(self, channel: int) -> int:
        """Return about how many bytes of large data of a channel wait to be sent."""
        return len(self._large.get(channel, ())) * PIECE

    async def room(self) -> None:
        """Wait until nothing else waits to be sent, to send what is less urgent. Raises ConnectionError."""
        if not self.open:
            raise ConnectionError(self._reason or "the connection is closed")
        if self._scheduled or self._large or self.full:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    def close(self, reason: str) -> None:
        """Send what was passed to ``send``, apart from further pieces, then close the connection."""
        self._reason = self._reason or reason
        self._large.clear()
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close the connection without sending anything."""
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    def peer(self) -> str:
        """Return address and port of the other end, for messages."""
        address = None if self._transport is None else self._transport.get_extra_info("peername")
        return f"{address[0]}:{address[1]}" if address else "unknown"

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # TLS transports of uvloop have no base class
        self._transport.set_write_buffer_limits(HIGH, LOW)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, size, end = 0, _HEADER.size, len(data)
        try:
            while end - at >= size:
                length, kind, channel = _HEADER.unpack_from(data, at)
                begin = at + size
                if length > (self.limit if kind == CONTROL else LONGEST_BODY):
                    raise ProtocolError(f"it sent a message of {length} bytes")
                if begin + length > end:
                    break
                at = begin + length
                self.owner.received(kind, channel, data[begin:at])
                if not self.open:
                    return
        except ProtocolError as error:
            self.abort(str(error))
        self._rest = data[at:]

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self._schedule()

    def connection_lost(self, error: Exception | None) -> None:
        self._reason = self._reason or (f"the connection ended: {error}" if error else CLOSED)
        self._turn.clear()
        self._large.clear()
        for waiter in self._room:
            if not waiter.done():
                waiter.set_exception(ConnectionError(self._reason))
        self.owner.closed(self._reason)

    # --- sending ---

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        transport, turn = self._transport, self._turn
        if transport is None or transport.is_closing():
            return
        if self._large and not self.full:
            channel, pieces = next(iter(self._large.items()))
            turn.append(pieces.popleft())
            del self._large[channel]
            if pieces:
                self._large[channel] = pieces  # now the last
        if turn:
            self._turn = []
            transport.write(b"".join(turn))
        if self.full:
            if transport.get_write_buffer_size() > MOST:
                self.abort("it does not read")
            return
        if self._large:
            self._schedule()
            return
        waiters, self._room = self._room, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
