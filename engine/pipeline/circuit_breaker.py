"""Circuit breakers, one for each destination. A breaker opens after two failures in a row and closes after a success.

A single failure may be caused by the content of the delivery. Two failures in a row are attributed to the destination.
Its pending deliveries are then not tried during a pause, which grows exponentially with further failures. After the
pause, one delivery probes the destination.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from engine.model import DestinationSpec
from engine.model.retry import RetryPolicy

LONGEST = 30.0  #: seconds; longest pause, and so the longest delay before a recovered destination is tried


class DeliveryStatus(Struct, frozen=True, kw_only=True):
    """State of a pending delivery, and of the circuit breaker of its destination."""

    failing: bool = False  #: the last delivery to the destination failed
    held_until: float = 0.0  #: end of the pause of the destination; 0: no pause
    under_way: bool = False  #: an attempt of the delivery runs


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
        """Return the end of the last pause in deliveries to the destination; 0 if there was no pause.

        The end may be in the past.
        """
        breaker = self._breakers.get(destination)
        if breaker is None or breaker.until > now + LONGEST:  # the clock was set back
            return 0.0
        return breaker.until

    def failed(self, destination: DestinationSpec, now: float) -> None:
        breaker = self._breakers.setdefault(destination, _Breaker())
        if now < self.until(destination, now):
            return  # an attempt that began before the pause does not extend it
        breaker.failures += 1
        if breaker.failures > 1:
            breaker.until = now + min(LONGEST, self._policy.delay(breaker.failures - 1, self._random.random()))

    def succeeded(self, destination: DestinationSpec) -> None:
        self._breakers.pop(destination, None)
