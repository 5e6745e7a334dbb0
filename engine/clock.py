"""What time it is: the one place that knows.

``now`` is wall-clock time in seconds since the epoch, because due times must survive a restart.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()
