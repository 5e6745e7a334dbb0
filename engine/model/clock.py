"""Clock of the engine: every component reads the time of day from a ``Clock``, which tests replace.

Times are seconds since the epoch rather than since start-up, because stored due times must stay valid after a restart.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Return the current time in seconds since the epoch (UTC)."""
        ...


class SystemClock:
    def now(self) -> float:
        return time.time()


def rfc3339(moment: float) -> str:
    """Format seconds since the epoch in UTC with milliseconds, such as ``2026-01-31T23:59:59.123Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
