"""Requests of simulated clients: which of them were refused, and must not be stored, and which come together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence


class Requests:
    """Requests by their payloads, of which no two are the same. ``violation`` is told what must not be."""

    def __init__(self, violation: Callable[[str], None]) -> None:
        self._violation = violation
        self._open: Counter[bytes] = Counter()  #: sendings without a refusal
        self._refused: set[bytes] = set()  #: all sendings were refused
        self._stored: set[bytes] = set()
        self._together: list[Sequence[bytes]] = []  #: batches since the process began

    def sent(self, payload: bytes) -> None:
        self._open[payload] += 1
        self._refused.discard(payload)

    def sent_together(self, payloads: Sequence[bytes]) -> None:
        """Note requests that must be stored together, or not at all."""
        self._together.append(payloads)

    def refused(self, payload: bytes) -> None:
        """Note that a client was told that its request is not stored."""
        self._open[payload] -= 1
        if not self._open[payload]:
            del self._open[payload]
            self._refused.add(payload)
            if payload in self._stored:
                self._violation(f"a request was refused, but is stored: {payload!r}")

    def stored(self, payload: bytes) -> None:
        self._stored.add(payload)
        if payload in self._refused:
            self._violation(f"a request is stored, although it was refused before: {payload!r}")

    def process_ended(self) -> None:
        """Check that no part of a batch is stored without the others."""
        for payloads in self._together:
            stored = sum(payload in self._stored for payload in payloads)
            if 0 < stored < len(payloads):
                self._violation(f"{stored} of {len(payloads)} requests of a batch are stored")
        self._together.clear()
