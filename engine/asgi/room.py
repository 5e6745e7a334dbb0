"""Room that holders share, such as memory for unfinished requests, so that none of them can fill it for the others."""

from __future__ import annotations

from collections import Counter


class Room:
    """Room of ``size`` units. A holder may take more while as many stay free as it then has: alone, half of it."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self._own = Counter[str]()

    def add(self, holder: str, units: int) -> None:
        """Count more units of a holder, or fewer. Callers check before or after whether it ``fits``."""
        self.taken += units
        self._own[holder] += units
        if not self._own[holder]:
            del self._own[holder]

    def fits(self, holder: str, more: int = 0) -> bool:
        """Return whether a holder may have its units and ``more``."""
        return self._own[holder] + more <= self.size - self.taken - more
