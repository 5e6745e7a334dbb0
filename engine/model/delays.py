"""Due times of delayed invocations that were drawn while the clock was far ahead."""

from __future__ import annotations

from engine.model.identity import AHEAD, accepted_at, key_at

LONGEST_DELAY = 7 * 86_400.0  #: seconds; longest delay of a request to the API
LONGEST_RETRY = LONGEST_DELAY / 2  #: largest ``retry.longest``; jitter can double it


def doubtful_after(now: float) -> tuple[float, int]:
    """Return the due time and the key beyond which a due time was drawn by a wrong clock.

    A due time is wrong if it is later than the returned one, and the invocation is a retry or its key is not smaller
    than the returned one. No retry is delayed for so long, and no such key was drawn by a right clock.
    """
    return now + LONGEST_DELAY, key_at(now + AHEAD)


def true_due(key: int, first_due_at: float, attempt: int, *, now: float, since: float) -> float:
    """Return the due time for an invocation whose due time is wrong.

    Its delay counts from ``since``, the time at which the clock was found to be right again. A retry, and an invocation
    whose delay cannot be told because the clock was set back before it was accepted, are due at ``now``.
    """
    delay = first_due_at - accepted_at(key) if attempt == 1 else 0.0
    return max(now, since + delay)
