"""Disk guard: keeps free space for accepted work by refusing new work below a watermark."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engine.errors import DiskLow
from engine.model.clock import Clock

#: Seconds between two measurements of the free space.
LOOK_EVERY = 0.25
#: Bytes that a request or a write may take on disk in addition to its payload: pages are written whole, and twice.
ROW = 1 << 16


def free_space(path: Path) -> int:
    """Return the bytes available to unprivileged processes in the file system of ``path``."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


class DiskGuard:
    """Watermark of free space. Refuses new work and calls ``on_low`` while fewer than ``needed`` bytes are free.

    Between two measurements, accepted bytes count as written, so that a burst cannot pass the watermark unnoticed.
    """

    def __init__(self, path: Path, needed: int, clock: Clock, on_low: Callable[[], None] = lambda: None) -> None:
        self._path, self._needed, self._clock, self._on_low = path, needed, clock, on_low
        self._measured_at = float("-inf")
        self._free = needed

    def check(self, size: int = 0) -> None:
        """Count ``size`` bytes of payload as written. Raises DiskLow if they do not fit above the watermark."""
        now = self._clock.now()
        self._free -= size + ROW
        if self._free < self._needed or not 0 <= now - self._measured_at < LOOK_EVERY:
            self._measure(now)
        if self._free < self._needed:
            raise DiskLow(self._free, self._needed)

    def _measure(self, now: float) -> None:
        self._free, self._measured_at = free_space(self._path), now
        if self._free < self._needed:
            self._on_low()
