"""Detector of stalls: seconds for which a part of the engine had work that it could do, and did none of it.

A part is checked only when a client asks for health or metrics, so that an idle engine sleeps. If it has the same
possible work at two checks, and has done nothing between them, the work waits for no good reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class Progress:
    """Looks at the parts. ``elapsed`` is a clock that cannot be set."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._elapsed = elapsed
        self._seen: dict[str, tuple[Hashable, float]] = {}

    def stalled(self, part: str, possible: Hashable | None) -> float:
        """Return the seconds since the first look at which ``part`` had the same possible work; 0.0 if it has none.

        ``possible`` identifies the work, and changes with each piece of it that is done.
        """
        if possible is None:
            self._seen.pop(part, None)
            return 0.0
        now = self._elapsed()
        seen, since = self._seen.get(part, (None, now))
        if seen != possible:
            self._seen[part] = possible, now
            return 0.0
        return now - since
