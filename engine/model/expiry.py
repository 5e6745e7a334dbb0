"""Time by which stored data expires. While the clock is not trusted, this time runs on from the last trusted one."""

from __future__ import annotations

import time
from collections.abc import Callable


class Expiry:
    """Expiry time of one clock. All components that discard data by its age compare it with ``now`` of this class."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._reference: float | None = None
        self._since = 0.0

    @property
    def held(self) -> bool:
        """True while the clock is not trusted."""
        return self._reference is not None

    def now(self) -> float:
        """Return the time of the clock, or the last trusted time plus the time since ``hold`` if that is earlier."""
        if self._reference is None:
            return self._now()
        return min(self._now(), self._reference + time.monotonic() - self._since)

    def hold(self, reference: float) -> None:
        """Do not trust the clock until ``release``. ``reference`` is the last trusted time."""
        self._reference, self._since = reference, time.monotonic()

    def release(self) -> None:
        self._reference = None
