"""State that all connections of one listener share: limits, open connections, running requests, and the date."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate
from typing import Protocol

from engine.asgi.admission import ClientRules
from engine.asgi.room import Room
from engine.asgi.turns import ReadTurns
from engine.asgi.unsent import UnsentResponses
from engine.asgi.wire import App


class OpenConnection(Protocol):
    """Connection, as the listener uses it at its end."""

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
            self._date, self._second = b"date: %b\r\n" % formatdate(second, usegmt=True).encode(), second
        return self._date
