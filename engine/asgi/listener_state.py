"""State that all connections of one listener share: open connections, running requests, memory, turns, and the date.

Bytes of requests in memory are counted for each connection and for its listener. Of bodies, only those that span
several packets count: the application reads the others soon, and limits their size itself. Incomplete heads count, and
bytes of later requests that wait for the end of the current one. An application may pass a body on piece by piece and
keep none of it, for example write it to disk. Such a body is *streamed*: the application releases its pieces, and the
connection reads no further packet before. Streamed bodies together have at most about ``STREAMED`` bytes in memory,
however many there are.

The bytes count for the client, or, once the request has proven whose it is, for its project. No holder can fill the
memory for the others (``room``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from itertools import islice
from typing import Protocol

from engine.asgi.admission import ClientRules
from engine.asgi.responses import RETRY, Refusal
from engine.asgi.room import Room
from engine.asgi.wire import App

STREAMED = 4 << 20  #: bytes of streamed bodies from which they read no further packet
LARGE = 64 << 10  #: bytes of a packet after which a connection waits for its turn
BATCH_SIZE = 32  #: connections that read at one turn of the event loop; enough for 200 clients that reconnect
STALLED_LIMIT = 32 << 20  #: bytes of unsent responses from which on clients are cut after ``STALL``
STALL = 20.0  #: seconds; a slow client takes bytes in steps of over 1 MB, the room that the system makes at once


class OpenConnection(Protocol):
    """Connection, as its listener uses it."""

    @property
    def held(self) -> HeldBytes: ...

    def take_turn(self) -> None:
        """Read the next packet, for which the connection has waited."""

    def unsent(self) -> int:
        """Return the number of bytes of responses that the system has not taken."""

    def stop(self) -> None:
        """Close the connection after the response to the current request."""

    def cut(self, *, reset: bool) -> None:
        """Close the connection at once, without sending what is unsent."""


class ListenerState:
    """``idle`` is set while no connection is open.

    ``keep_alive`` is the time in seconds for a head, between two packets of a body, and for a client to take some bytes
    of a response.
    """

    def __init__(self, app: App, *, keep_alive: float, held_limit: int, rules: ClientRules | None = None) -> None:
        self.app, self.keep_alive = app, keep_alive
        self.rules = rules or ClientRules()
        self.connections: set[OpenConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()  #: one for each request that the application handles
        self.room, self.streamed = Room(held_limit), 0  #: for ``HeldBytes``, and those of streamed bodies among them
        self.turns, self.unsent = ReadTurns(), UnsentResponses(held_limit, asyncio.get_running_loop().time)
        self.idle = asyncio.Event()
        self.idle.set()
        self._date, self._second = b"", 0

    def date(self) -> bytes:
        """Return the header line Date. Its text is made once a second."""
        second = int(time.time())
        if second != self._second:
            self._date, self._second = b"Date: %b\r\n" % formatdate(second, usegmt=True).encode(), second
        return self._date


class HeldBytes:
    """Bytes of one connection's request, which ``client`` holds. ``release`` marks the body as streamed."""

    def __init__(self, totals: ListenerState, client: str) -> None:
        self.size, self.holder, self._client = 0, client, client
        self._totals, self._streamed = totals, False

    @property
    def may_read(self) -> bool:
        """Whether the connection may read its next packet."""
        return not self._streamed or (self.size == 0 and self._totals.streamed < STREAMED)

    def add(self, size: int) -> None:
        """Count ``size`` more bytes. Raises Refusal if the holder has too many then."""
        self.count(size)
        if refusal := self.refusal():
            raise refusal

    def replace(self, size: int) -> None:
        """Count ``size`` bytes in place of those before. Raises Refusal as ``add``."""
        self.clear()
        self.add(size)

    def count(self, size: int) -> None:
        """Count ``size`` more bytes, whose holder may not be known yet. The caller checks ``refusal`` once it is."""
        self.size += size
        self._totals.room.add(self.holder, size)
        if self._streamed:
            self._totals.streamed += size

    def refusal(self) -> Refusal | None:
        """Return the refusal of the request if its holder has too many bytes."""
        if self._totals.room.fits(self.holder):
            return None
        self._totals.rules.turned_away.note("held_bytes", self.holder)
        return Refusal(503, b"too many bytes of requests are held in memory; retry later, or send fewer", RETRY)

    def move(self, holder: str) -> None:
        """Count the bytes of this request for another holder."""
        self._totals.room.add(self.holder, -self.size)
        self._totals.room.add(holder, self.size)
        self.holder = holder

    def release(self, size: int) -> None:
        """Count ``size`` bytes as no longer in memory."""
        totals = self._totals
        if not self._streamed:
            self._streamed = True
            totals.streamed += self.size
        self._subtract(size)

    def clear(self) -> None:
        """Count all bytes as no longer in memory: the request has ended."""
        if self.size or self._streamed:
            self._subtract(self.size)
            self._streamed = False
        self.holder = self._client

    def _subtract(self, size: int) -> None:
        self.size -= size
        self._totals.room.add(self.holder, -size)
        if self._streamed:
            self._totals.streamed -= size
            self._totals.turns.proceed()


class ReadTurns:
    """Queue of connections whose last packet was large.

    At each turn of the event loop, a few of them read one packet each, and clients with small requests are served in
    between. The connections that hold most bytes come first: their requests are complete, or refused, before others
    begin to fill the memory.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[OpenConnection] = []
        self._scheduled = False

    def wait(self, reader: OpenConnection) -> None:
        self._waiting.append(reader)
        self.proceed()

    def proceed(self) -> None:
        """Let waiting connections read at the next turn of the event loop, if they may."""
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        self._waiting.sort(key=lambda reader: reader.held.size, reverse=True)  # stable: equal ones in order of arrival
        chosen = list(islice((reader for reader in self._waiting if reader.held.may_read), BATCH_SIZE))
        if not chosen:
            return  # until a streamed body releases a piece
        self._waiting = [reader for reader in self._waiting if reader not in chosen]
        self.proceed()
        for reader in chosen:
            reader.take_turn()


class _Unsent:
    """Response of one connection. All of its ``size`` stays in memory until the last byte is sent."""

    def __init__(self, size: int, left: int, now: float) -> None:
        self.size, self.left = max(size, left), left
        self.since = now  #: time at which ``left`` was seen to change


class UnsentResponses:
    """Responses larger than the send buffers of their connections.

    If they exceed ``STALLED_LIMIT``, clients that have taken nothing for ``STALL`` seconds are cut. If they exceed
    ``limit``, the clients that have taken nothing for the longest time are cut at once.
    """

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self._limit, self._now = limit, now
        self.size = 0  #: total bytes
        self._responses: dict[OpenConnection, _Unsent] = {}

    def add(self, reader: OpenConnection, size: int) -> None:
        """Add the response of a connection whose buffer is full. ``size`` is the number of bytes written last."""
        self.remove(reader)
        response = self._responses[reader] = _Unsent(size, reader.unsent(), self._now())
        self.size += response.size
        if self.size > STALLED_LIMIT:
            self._cut()

    def remove(self, reader: OpenConnection) -> None:
        if response := self._responses.pop(reader, None):
            self.size -= response.size

    def _cut(self) -> None:
        now = self._now()
        for reader, response in self._responses.items():
            if (left := reader.unsent()) != response.left:
                response.left, response.since = left, now
        for reader, response in sorted(self._responses.items(), key=lambda item: item[1].since):
            if self.size <= STALLED_LIMIT or (self.size <= self._limit and now - response.since < STALL):
                return
            self.remove(reader)
            reader.cut(reset=True)
