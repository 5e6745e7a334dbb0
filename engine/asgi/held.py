"""Bytes of requests in memory, for each connection and for its listener.

Of bodies, only those that span several packets count: the application reads the others soon, and limits their size
itself. Incomplete heads count, and bytes of later requests that wait for the end of the current one. An
application may pass a body on piece by piece and keep none of it, for example write it to disk. Such a body is
*streamed*: the application releases its pieces, and the connection reads no further packet before. Streamed bodies
together have at most about ``STREAMED`` bytes in memory, however many there are.

The bytes count for the client, or, once the request has proven whose it is, for its project. No holder can fill the
memory for the others (``room``).
"""

from __future__ import annotations

from typing import Protocol

from engine.asgi.admission import ClientRules
from engine.asgi.responses import RETRY, Refusal
from engine.asgi.room import Room
from engine.asgi.turns import ReadTurns

STREAMED = 4 << 20  #: bytes of streamed bodies from which they read no further packet


class HeldTotals(Protocol):
    """Listener, as the bytes of its connections are counted."""

    room: Room
    streamed: int
    turns: ReadTurns
    rules: ClientRules


class HeldBytes:
    """Bytes of one connection's request, which ``client`` holds. ``release`` marks the body as streamed."""

    def __init__(self, totals: HeldTotals, client: str) -> None:
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
