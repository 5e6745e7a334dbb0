"""Time by which stored data expires. While the clock is not trusted, this time runs on from the last trusted one."""

from __future__ import annotations

import time
from collections.abc import Callable


class Expiry:
    """Expiry time of one clock. All components that discard data by its age compare it with ``now`` of this class."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.held = False  #: the clock is not trusted
        self._reference = self._since = 0.0

    def now(self) -> float:
        """Return the time of the clock, or the last trusted time plus the time since ``hold`` if that is earlier."""
        if not self.held:
            return self._now()
        return min(self._now(), self._reference + time.monotonic() - self._since)

    def hold(self, reference: float) -> None:
        """Do not trust the clock until ``release``. ``reference`` is the last trusted time."""
        self.held, self._reference, self._since = True, reference, time.monotonic()

    def release(self) -> None:
        self.held = False
