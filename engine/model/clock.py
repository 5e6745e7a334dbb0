"""Clock: the only source of the current time.

``now`` is wall-clock time in seconds since the epoch, because due times must survive a restart.
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
    """Format as UTC with milliseconds: ``2026-01-31T23:59:59.123Z``."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
