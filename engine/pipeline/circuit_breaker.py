"""Destinations that take nothing at the moment, and how long each is left alone.

A failure may be the fault of what was sent, a second one in a row is the destination's. From then on all that it is
owed waits together, each time longer, and one delivery tries for the others; what it takes ends the trouble.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from engine.model import DestinationSpec
from engine.model.retry import RetryPolicy

LONGEST = 30.0  #: seconds: so late it is noticed at most that a destination works again


class DeliveryStatus(Struct, frozen=True, kw_only=True):
    """The state of a delivery that is owed, and of its destination."""

    failing: bool = False  #: the destination's last delivery failed
    held_until: float = 0.0  #: nothing is sent to the destination before; 0: nothing is held back
    under_way: bool = False  #: this one is being tried


class _Breaker(Struct):
    failures: int = 0  #: in a row
    until: float = 0.0


class CircuitBreakers:
    def __init__(self, policy: RetryPolicy, random: Random) -> None:
        self._policy, self._random = policy, random
        self._breakers: dict[DestinationSpec, _Breaker] = {}

    def __contains__(self, destination: DestinationSpec) -> bool:
        """Whether its last delivery failed."""
        return destination in self._breakers

    def until(self, destination: DestinationSpec, now: float) -> float:
        """The moment before which it is left alone."""
        trouble = self._breakers.get(destination)
        if trouble is None or trouble.until > now + LONGEST:  # the clock was set back
            return 0.0
        return trouble.until

    def failed(self, destination: DestinationSpec, now: float) -> None:
        trouble = self._breakers.setdefault(destination, _Breaker())
        if now < self.until(destination, now):
            return  # it was under way before
        trouble.failures += 1
        if trouble.failures > 1:
            trouble.until = now + min(LONGEST, self._policy.delay(trouble.failures - 1, self._random.random()))

    def succeeded(self, destination: DestinationSpec) -> None:
        self._breakers.pop(destination, None)
