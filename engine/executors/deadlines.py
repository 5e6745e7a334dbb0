"""Deadlines of the calls of one instance, with one timer for all of them.

A timer for each call would be set and cancelled with each request, which takes a microsecond or two. This one stays set
when a call ends, and is set again only when it fires, for the earliest deadline of the calls that run then. After the
last call it fires once for nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

from engine.executors.call import Call

_SHORTEST = 0.001  #: seconds; the loop counts time in milliseconds


class Deadlines:
    """Deadlines of ``calls``, which the instance adds and removes. ``expire`` is called with each that is over."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, calls: Mapping[int, Call], expire: Callable[[Call], None]
    ) -> None:
        self._loop, self._calls, self._expire = loop, calls, expire
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = 0.0  #: by the clock of the loop

    def set(self, call: Call, seconds: float) -> None:
        """End ``call`` after ``seconds``, unless it is no longer among the calls then."""
        call.deadline = deadline = self._loop.time() + seconds
        if self._timer is None:
            self._set_timer(deadline, seconds)
        elif deadline < self._fires_at:
            self._timer.cancel()
            self._set_timer(deadline, seconds)

    def cancel(self) -> None:
        """End no further calls."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, deadline: float, seconds: float) -> None:
        self._fires_at, self._timer = deadline, self._loop.call_later(seconds, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        over = [call for call in self._calls.values() if call.deadline <= now]
        for call in over:
            call.deadline = math.inf
        earliest = min((call.deadline for call in self._calls.values()), default=math.inf)
        if earliest < math.inf:
            self._set_timer(earliest, max(earliest - now, _SHORTEST))
        for call in over:
            self._expire(call)
