"""Room that holders share, such as the bytes of unfinished requests: no holder can fill it for the others."""

from __future__ import annotations

from collections import Counter


class Room:
    """Room of ``size`` units. A holder may have as many as are free: half of them while nobody else has any."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._own = Counter[str]()

    def add(self, holder: str, units: int) -> None:
        """Count more units of a holder, or fewer. Callers refuse what makes it have too many (``is_over``)."""
        self.taken += units
        self._own[holder] += units
        if not self._own[holder]:
            del self._own[holder]

    def is_over(self, holder: str) -> bool:
        """Return whether a holder has more units than it may have."""
        return self._own[holder] > self.size - self.taken
