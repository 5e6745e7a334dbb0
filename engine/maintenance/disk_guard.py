"""Disk guard: refuses new invocations when disk space is low, so that outcomes of accepted ones can be stored."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from engine.errors import DiskLow
from engine.model.clock import Clock

#: Seconds for which a measurement of the free space is used.
LOOK_EVERY = 0.25
#: Bytes counted for each request in addition to its payload, because whole pages are written, and twice.
ROW = 1 << 16


def free_space(path: Path) -> int:
    """Return the bytes available to unprivileged processes in the file system of ``path``."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


class DiskGuard:
    """Check of the free disk space. While fewer than ``needed`` bytes are free, new work is refused.

    ``on_low`` is called after each measurement that finds fewer. Between two measurements, accepted bytes are
    subtracted from the free space, so that a burst of requests is noticed too.
    """

    def __init__(self, path: Path, needed: int, clock: Clock, on_low: Callable[[], None] = lambda: None) -> None:
        self._path, self._needed, self._clock, self._on_low = path, needed, clock, on_low
        self._measured_at = float("-inf")
        self._free = needed

    def check(self, size: int = 0) -> None:
        """Subtract ``size`` bytes of payload from the free space. Raise DiskLow if fewer than ``needed`` are left.

        Before DiskLow is raised, and if the last measurement is too old, the free space is measured again. The payload
        is not subtracted from a new measurement.
        """
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
