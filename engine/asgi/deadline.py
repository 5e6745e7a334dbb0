"""Deadline of a connection, moved at each request without a new timer of the event loop, and times for bodies."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

DROPPED_LIMIT = 256 << 20  #: bytes of an answered request that are dropped before the connection is aborted
LINGER_TIME = 30.0  #: seconds for these bytes
LINGER_PAUSE = 5.0  #: seconds between two packets of them
TLS_PAUSE = 0.5  #: the same before close_notify: bytes that come after it reset the connection
BODY_RATE = 64 << 10  #: bytes of a body per second that extend its time


class Deadline:
    """Call ``expired`` once the loop's time reaches the deadline.

    A timer that fires before the deadline, because that was moved, is started again for the rest. Without a deadline,
    no timer is started, so an idle loop does not wake up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[], object]) -> None:
        self._loop, self._expired = loop, expired
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def set(self, seconds: float) -> None:
        """Set the deadline, in seconds from now, in place of the previous one."""
        self._at = self._loop.time() + seconds
        if self._at < self._timer_at:
            self._start()

    def clear(self) -> None:
        self._at = math.inf

    def close(self) -> None:
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(self._at, self._fire), self._at

    def _fire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._at == math.inf:
            return
        if self._loop.time() < self._at:
            self._start()
        else:
            self._at = math.inf
            self._expired()


class BodyTime:
    """Time that is left for a body: ``allowed`` seconds, and one more for each 64 KiB that have arrived.

    Time in which the engine does not read is not counted.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, allowed: float) -> None:
        self._loop, self._allowed = loop, allowed
        self._began = self._end = 0.0
        self._paused = math.inf  # time at which the engine stopped reading

    def start(self) -> None:
        self._began, self._paused = self._loop.time(), math.inf
        self._end = self._began + self._allowed

    def add(self, size: int) -> None:
        """Extend the time for ``size`` more bytes."""
        self._end += size / BODY_RATE

    def pause(self) -> None:
        self._paused = min(self._paused, self._loop.time())

    def resume(self) -> None:
        if self._paused < math.inf:
            self._end += self._loop.time() - self._paused
            self._paused = math.inf

    def left(self) -> float:
        """Return the seconds that are left, 0 or more."""
        return max(0.0, self._end - self._loop.time())


class DropTime:
    """Time and number of bytes that are left for the rest of an answered request."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._dropped, self._end, self._pause = loop, 0, 0.0, 0.0

    def start(self, *, ends_tls: bool = False) -> float:
        """Return the seconds until the next packet. ``ends_tls``: close_notify follows them."""
        self._dropped, self._end = 0, self._loop.time() + LINGER_TIME
        self._pause = TLS_PAUSE if ends_tls else LINGER_PAUSE
        return self._pause

    def left(self, size: int) -> float:
        """Count ``size`` more bytes. Return the seconds until the next packet; 0 if the connection must end."""
        self._dropped += size
        left = self._end - self._loop.time()
        return 0.0 if left <= 0 or self._dropped > DROPPED_LIMIT else min(left, self._pause)
