"""Timer for the next start that the rate of a function allows. Set only while a function has used up its rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.scheduling.runqueue import RunQueue

LONGEST = 3600.0  #: seconds until the timer looks again


class TokenTimer:
    """Timer that renews the rates of a run queue, and then calls ``renewed``."""

    def __init__(self, queue: RunQueue, renewed: Callable[[], None]) -> None:
        self._queue, self._renewed = queue, renewed
        self._timer: asyncio.Handle | None = None
        self._fires_at = 0.0  #: by the clock of the loop; uvloop has no timer for what is due within half a millisecond

    @property
    def is_set(self) -> bool:
        return self._timer is not None

    def now(self) -> float:
        """Return the time of the event loop in seconds, which no step of the clock changes."""
        return asyncio.get_running_loop().time()

    def set(self) -> None:
        """Set the timer for the first token, if any function waits for one, and the timer is not earlier."""
        moment = self._queue.next_token()
        if moment is None:
            return
        loop = asyncio.get_running_loop()
        moment = min(moment, loop.time() + LONGEST)
        if self._timer is None or moment < self._fires_at:
            self.cancel()
            self._fires_at, self._timer = moment, loop.call_at(moment, self._expire)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        self._queue.renew(self.now())
        self._renewed()
        self.set()
