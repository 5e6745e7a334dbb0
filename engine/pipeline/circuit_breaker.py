"""Circuit breaker per destination. Opens after two failures, probes with one delivery.

A single failure may be caused by the delivery itself. A second one in a row is attributed to the destination: from
then on all its pending deliveries wait, with exponential backoff, and one of them probes. A success closes the breaker.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from engine.model import DestinationSpec
from engine.model.retry import RetryPolicy

LONGEST = 30.0  #: seconds; longest pause, so the longest time until a recovered destination is noticed


class DeliveryStatus(Struct, frozen=True, kw_only=True):
    """State of a pending delivery and of its destination."""

    failing: bool = False  #: the last delivery to the destination failed
    held_until: float = 0.0  #: time before which nothing is sent to the destination; 0: not held
    under_way: bool = False  #: the delivery is being tried now


class _Breaker(Struct):
    failures: int = 0  #: failures in a row
    until: float = 0.0


class CircuitBreakers:
    def __init__(self, policy: RetryPolicy, random: Random) -> None:
        self._policy, self._random = policy, random
        self._breakers: dict[DestinationSpec, _Breaker] = {}

    def __contains__(self, destination: DestinationSpec) -> bool:
        """Return whether the last delivery to the destination failed."""
        return destination in self._breakers

    def until(self, destination: DestinationSpec, now: float) -> float:
        """Return the time before which nothing is sent to the destination; 0 if its breaker is closed."""
        breaker = self._breakers.get(destination)
        if breaker is None or breaker.until > now + LONGEST:  # the clock was set back
            return 0.0
        return breaker.until

    def failed(self, destination: DestinationSpec, now: float) -> None:
        breaker = self._breakers.setdefault(destination, _Breaker())
        if now < self.until(destination, now):
            return  # the delivery began before the breaker opened
        breaker.failures += 1
        if breaker.failures > 1:
            breaker.until = now + min(LONGEST, self._policy.delay(breaker.failures - 1, self._random.random()))

    def succeeded(self, destination: DestinationSpec) -> None:
        self._breakers.pop(destination, None)
