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
from typing import Protocol

from engine.model.alarms import CHECK, Alarm, Alarms
from engine.model.expiry import Expiry


class Clock(Protocol):
    @property
    def alarms(self) -> Alarms:
        """Alarms of this clock, which announce its steps."""
        ...

    def now(self) -> float:
        """Return the current time in seconds since the epoch (UTC)."""
        ...

    @property
    def expiry(self) -> Expiry:
        """Time by which stored data expires, instead of ``now``. It differs while the clock is not trusted."""
        ...

    def call_at(self, moment: float, callback: Callable[[], object]) -> Alarm:
        """Call ``callback`` once the clock has reached ``moment``, in the event loop. A step is noticed after 30 s."""
        ...

    async def sleep_toward(self, moment: float) -> None:
        """Sleep until the clock reaches ``moment`` or is set. The caller must compare the clock with it again."""
        ...


class WallClock:
    """Base of clocks: alarms, for a subclass that has ``now``. A step is noticed after at most ``check`` seconds."""

    def __init__(self, check: float = CHECK) -> None:
        self.alarms, self.expiry = Alarms(self.now, check), Expiry(self.now)

    @abstractmethod
    def now(self) -> float: ...

    def call_at(self, moment: float, callback: Callable[[], object]) -> Alarm:
        return self.alarms.set(moment, callback)

    async def sleep_toward(self, moment: float) -> None:
        reached = asyncio.Event()
        alarm = self.alarms.set(moment, reached.set, at_steps=True)
        try:
            await reached.wait()
        finally:
            alarm.cancel()


class SystemClock(WallClock):
    now = staticmethod(time.time)  # not a method that calls it: the clock is read several times for each invocation


def rfc3339(moment: float) -> str:
    """Format seconds since the epoch in UTC with milliseconds, such as ``2026-01-31T23:59:59.123Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
