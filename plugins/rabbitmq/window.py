"""How many messages may be on their way from a broker or be held here, which counts them and not their bytes.

So a few are asked for first, and then as many as fit by the largest that were seen lately. Those under way when larger
ones begin to come are as many as before.
"""

from __future__ import annotations

#: Messages while nothing is known of their size.
FIRST = 32
#: What is left of the largest size that was seen, with each batch of smaller ones.
FADES = 0.8


class Window:
    """So many as two batches have, or fewer if they would have more than ``room`` bytes, as large as the last ones."""

    def __init__(self, batch: int, room: int) -> None:
        self._most, self._room, self._largest = 2 * batch, room, 0.0
        self.size = min(self._most, FIRST)

    @property
    def batch(self) -> int:
        """Half of it; the other half is on its way while this is being written."""
        return max(1, self.size // 2)

    def saw(self, largest: int) -> bool:
        """The largest message of a batch. True if the window has another size from now on."""
        self._largest = max(largest, self._largest * FADES)
        wanted = max(1, min(self._most, int(self._room / max(1.0, self._largest))))
        # A window costs two round trips: within a factor of two it stays as it is.
        if not (wanted <= self.size / 2 or wanted >= self.size * 2 or self.size < wanted == self._most):
            return False
        self.size = wanted
        return True
