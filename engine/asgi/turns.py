"""Turns of connections that read large bodies, so that they neither delay other clients nor fill the memory."""

from __future__ import annotations

import asyncio
from typing import Protocol

LARGE = 64 << 10  #: bytes of a packet after which a connection waits for its turn
BATCH_SIZE = 8  #: connections that read at one turn of the event loop


class LargeReader(Protocol):
    """Connection that waits before it reads the next packet."""

    held: int  #: bytes of its request in memory

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

    def wait(self, reader: LargeReader) -> None:
        if not self._waiting:
            self._loop.call_soon(self._next)
        self._waiting.append(reader)

    def _next(self) -> None:
        self._waiting.sort(key=lambda reader: reader.held, reverse=True)  # stable: equal ones in order of arrival
        chosen, self._waiting = self._waiting[:BATCH_SIZE], self._waiting[BATCH_SIZE:]
        if self._waiting:
            self._loop.call_soon(self._next)
        for reader in chosen:
            reader.take_turn()
