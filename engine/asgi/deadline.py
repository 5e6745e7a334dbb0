"""Deadline of a connection, moved at each request without a new timer of the event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


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
