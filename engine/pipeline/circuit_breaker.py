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

LONGEST = 10.0  #: seconds; longest pause, and so the longest delay before a recovered destination is tried


class DeliveryStatus(Struct, frozen=True, kw_only=True):
    """State of a pending delivery, and of the circuit breaker of its destination."""

    failing: bool = False  #: the last delivery to the destination failed
    held_until: float = 0.0  #: end of the pause of the destination; 0: no pause
    under_way: bool = False  #: an attempt of the delivery runs


class DestinationStatus(Struct, frozen=True, kw_only=True):
    """State of a destination since the start of the engine, and the cause of its last failure."""

    state: str = "ok"  #: ``ok``, ``failing`` (the last delivery failed), or ``paused`` (until ``next_try``)
    problem: str = ""
    since: float = 0.0  #: time of the first failure in a row; 0: none
    failures: int = 0  #: failures in a row
    next_try: float = 0.0  #: end of the pause; 0: no pause


class _Breaker(Struct):
    failures: int = 0  #: failures in a row
    until: float = 0.0
    since: float = 0.0
    problem: str = ""


class CircuitBreakers:
    def __init__(self, policy: RetryPolicy, random: Random) -> None:
        self._policy, self._random = policy, random
        self._breakers: dict[DestinationSpec, _Breaker] = {}
        self._reached: set[DestinationSpec] = set()  #: destinations with a success since the start of the engine

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

    def status(self, destination: DestinationSpec, now: float) -> DestinationStatus:
        breaker, until = self._breakers.get(destination), self.until(destination, now)
        if breaker is None:
            return DestinationStatus()
        return DestinationStatus(
            state="paused" if until > now else "failing",
            problem=breaker.problem,
            since=breaker.since,
            failures=breaker.failures,
            next_try=until if until > now else 0.0,
        )

    def failed(self, destination: DestinationSpec, now: float, problem: str = "") -> None:
        breaker = self._breakers.setdefault(destination, _Breaker(since=now))
        breaker.problem = problem
        if now < self.until(destination, now):
            return  # an attempt that began before the pause does not extend it
        breaker.failures += 1
        if breaker.failures > 1:
            breaker.until = now + min(LONGEST, self._policy.delay(breaker.failures - 1, self._random.random()))

    def delay(self, destination: DestinationSpec, attempt: int) -> float:
        """Return the seconds until a delivery is tried again, whose ``attempt``, counted from 1, has failed.

        They are at most ``LONGEST``, except after a single failure, which may be caused by the delivery's content.
        """
        delay = self._policy.delay(attempt, self._random.random())
        alone = destination in self._reached and self._breakers[destination].failures == 1
        return delay if alone else min(LONGEST, delay)

    def succeeded(self, destination: DestinationSpec) -> None:
        self._breakers.pop(destination, None)
        self._reached.add(destination)
