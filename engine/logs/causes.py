"""Limit of lines in the engine's log: one a minute for each cause of failures."""

from __future__ import annotations

from collections.abc import Hashable
from time import monotonic

SPAN = 60.0  #: seconds
CAUSES = 1000  #: most lines within ``SPAN`` seconds


class Causes:
    """Causes that had a line within the last ``SPAN`` seconds."""

    def __init__(self) -> None:
        self._noted: set[Hashable] = set()
        self._since = 0.0

    def note(self, cause: Hashable) -> bool:
        """Return whether a failure gets a line, which its cause then has had."""
        if (now := monotonic()) - self._since > SPAN:
            self._noted.clear()
            self._since = now
        if cause in self._noted or len(self._noted) >= CAUSES:
            return False
        self._noted.add(cause)
        return True
