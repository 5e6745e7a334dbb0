"""The watermark of free space: what accepted work still needs is kept from new work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engine.errors import DiskLow
from engine.model.clock import Clock

#: Seconds between two looks at the free space.
LOOK_EVERY = 0.25
#: Bytes that a request, or a write, may cost on disk beside its payload: pages are written whole, and twice.
ROW = 1 << 16


def free_space(path: Path) -> int:
    """Bytes that are left to us where ``path`` lies."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class DiskGuard:
    """Refuses new work while the disk has less than ``needed`` bytes free, and says so to ``on_low``.

    Between two looks what was let in counts as written, so that no burst can pass the mark unseen.
    """

    def __init__(self, path: Path, needed: int, clock: Clock, on_low: Callable[[], None] = lambda: None) -> None:
        self._path, self._needed, self._clock, self._on_low = path, needed, clock, on_low
        self._looked_at = float("-inf")
        self._free = needed

    def check(self, size: int = 0) -> None:
        """Let ``size`` bytes of payload in. Raises DiskLow."""
        now = self._clock.now()
        self._free -= size + ROW
        if self._free < self._needed or not 0 <= now - self._looked_at < LOOK_EVERY:
            self._look(now)
        if self._free < self._needed:
            raise DiskLow(self._free, self._needed)

    def _look(self, now: float) -> None:
        self._free, self._looked_at = free_space(self._path), now
        if self._free < self._needed:
            self._on_low()
