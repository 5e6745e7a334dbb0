"""Clock of the engine: every component reads the time of day from a ``Clock``, which tests replace.

Times are seconds since the epoch rather than since start-up, because stored due times must stay valid after a restart.
Components that wait for a time of day use ``call_at`` or ``sleep_toward``, which notice when the clock is set.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime

from engine.model.alarms import CHECK, Alarm, Alarms
from engine.model.expiry import Expiry


class Clock:
    """Base of clocks: a subclass has ``now``. A step of the clock is noticed after at most ``check`` seconds."""

    def __init__(self, check: float = CHECK) -> None:
        self.alarms = Alarms(self.now, check)  #: alarms of this clock, which announce its steps
        #: Time by which stored data expires, instead of ``now``. It differs while the clock is not trusted.
        self.expiry = Expiry(self.now)

    @abstractmethod
    def now(self) -> float:
        """Return the current time in seconds since the epoch (UTC)."""

    def call_at(self, moment: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` once the clock has reached ``moment``, in the event loop."""
        return self.alarms.set(moment, callback)

    def wake_toward(self, moment: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` once the clock has reached ``moment`` or is set, in the event loop."""
        return self.alarms.set(moment, callback, at_steps=True)

    async def sleep_toward(self, moment: float) -> None:
        """Sleep until the clock reaches ``moment`` or is set. The caller must compare the clock with it again."""
        reached = asyncio.Event()
        alarm = self.wake_toward(moment, reached.set)
        try:
            await reached.wait()
        finally:
            alarm.cancel()


class SystemClock(Clock):
    now = staticmethod(time.time)  # not a method that calls it: the clock is read several times for each invocation


def rfc3339(moment: float) -> str:
    """Format seconds since the epoch in UTC with milliseconds, such as ``2026-01-31T23:59:59.123Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
