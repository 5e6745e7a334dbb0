"""Window: number of messages that a broker sends before the first is acknowledged.

Brokers limit the number, not the bytes.

The window starts small. Its later size depends on the size of the largest recent messages. When larger messages follow,
messages that the broker has already sent are not limited by the new size.
"""

from __future__ import annotations

#: Messages in the window while their size is unknown.
FIRST = 32
#: Factor for the largest size after each batch of smaller messages.
FADES = 0.8


class PrefetchWindow:
    """Window of two full batches, or of fewer messages if two batches of recent sizes would exceed ``room`` bytes."""

    def __init__(self, batch: int, room: int) -> None:
        self._most, self._room, self._largest = 2 * batch, room, 0.0
        self.size = min(self._most, FIRST)

    @property
    def batch(self) -> int:
        """Number of messages in a batch: half of the window. The broker sends the other half meanwhile."""
        return max(1, self.size // 2)

    def adapt(self, largest: int) -> bool:
        """Adapt the window to the largest message of a batch, in bytes. Return whether its size has changed."""
        self._largest = max(largest, self._largest * FADES)
        wanted = max(1, min(self._most, int(self._room / max(1.0, self._largest))))
        # A change costs two round trips, so the size changes only by a factor of two or more.
        if not (wanted <= self.size / 2 or wanted >= self.size * 2 or self.size < wanted == self._most):
            return False
        self.size = wanted
        return True
