"""Time by which stored data expires. While the clock is not trusted, this time runs on from the last trusted one."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine.model.signal import Signal


class Expiry:
    """Expiry time of one clock. All components that discard data by its age compare it with ``now`` of this class.

    Each call of ``now`` and ``check`` compares the clock with the elapsed time since the call before, so that nothing
    expires by a clock that was set too far ahead a moment ago. ``doubted()`` announces that a hold has begun by itself.
    During a hold, each such call announces by ``cleared()`` if the clock is not too far ahead any more.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.doubted: Signal[[]] = Signal()
        self.cleared: Signal[[]] = Signal()
        self._now = now
        self.held = False  #: the clock is not trusted, as far as the last check has found
        self._reference = self._since = 0.0
        self._tolerance = 0.0
        self._seen = (0.0, 0.0)  #: time of day and elapsed time at the last check

    def watch(self, tolerance: float) -> None:
        """Begin a hold from now on when the clock is set ahead by more than ``tolerance`` seconds; 0: never."""
        self._tolerance, self._seen = tolerance, (self._now(), time.monotonic())

    def check(self) -> bool:
        """Return whether the clock is not trusted. Begin a hold if it was set too far ahead since the last check."""
        if self._tolerance and self.held:
            self._seen = (self._now(), time.monotonic())
            if self.ahead <= self._tolerance:
                self.cleared()
        elif self._tolerance:
            (before, then), self._seen = self._seen, (self._now(), time.monotonic())
            expected = before + self._seen[1] - then
            if self._seen[0] - expected > self._tolerance:
                self.hold(expected)
                self.doubted()
        return self.held

    def now(self) -> float:
        """Return the time of the clock, or the last trusted time plus the time since ``hold`` if that is earlier."""
        if not self.check():
            return self._now()
        return min(self._now(), self._trusted())

    @property
    def ahead(self) -> float:
        """Seconds by which the clock is ahead of the trusted time; 0 while the clock is trusted."""
        return max(0.0, self._now() - self._trusted()) if self.held else 0.0

    def hold(self, reference: float) -> None:
        """Do not trust the clock until ``release``. ``reference`` is the last trusted time."""
        self.held, self._reference, self._since = True, reference, time.monotonic()

    def release(self) -> None:
        self.held = False

    def _trusted(self) -> float:
        return self._reference + time.monotonic() - self._since
