"""Limit of lines in the engine's log: one a minute for each cause of failures."""

from __future__ import annotations

from collections.abc import Hashable
from time import monotonic

SPAN = 60.0  #: seconds
CAUSES = 1000  #: most lines within ``SPAN`` seconds


class Causes:
    """Causes that had a line within the last ``SPAN`` seconds."""

    def __init__(self) -> None:
        self._noted: dict[Hashable, float] = {}  #: times of the lines, from the earliest on

    def note(self, cause: Hashable) -> bool:
        """Return whether a failure gets a line, which its cause then has had."""
        now, noted = monotonic(), self._noted
        while noted and now - noted[earliest := next(iter(noted))] > SPAN:
            del noted[earliest]
        if cause in noted or len(noted) >= CAUSES:
            return False
        noted[cause] = now
        return True
