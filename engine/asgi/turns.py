"""Turns of connections that read large bodies, so that they neither delay other clients nor fill the memory."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Protocol

LARGE = 64 << 10  #: bytes of a packet after which a connection waits for its turn
BATCH_SIZE = 32  #: connections that read at one turn of the event loop; enough for 200 clients that reconnect


class HeldSize(Protocol):
    """Bytes of a connection's request in memory."""

    size: int

    @property
    def may_read(self) -> bool:
        """Whether the connection may read its next packet. A call of ``proceed`` follows when it may again."""


class LargeReader(Protocol):
    """Connection that waits before it reads the next packet."""

    @property
    def held(self) -> HeldSize: ...

    def take_turn(self) -> None:
        """Read the next packet."""


class ReadTurns:
    """Queue of connections whose last packet was large.

    At each turn of the event loop, a few of them read one packet each, and clients with small requests are served in
    between. The connections that hold most bytes come first: their requests are complete, or refused, before others
    begin to fill the memory.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[LargeReader] = []
        self._scheduled = False

    def wait(self, reader: LargeReader) -> None:
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
