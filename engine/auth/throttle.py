"""Rate limit for failed logins, by network and access key, in bounded memory."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache

from engine.errors import TooManyFailures
from engine.model.clock import Clock

SUBJECTS = 4096  #: tracked subjects; the one without failures for longest is dropped first

Subject = tuple[str, str]  #: network of a client, and its access key if that key exists


class AuthThrottle:
    """Counter of failed logins. Rejects a subject after ``limit`` failures, until its window of ``window`` s ends."""

    def __init__(self, clock: Clock, *, limit: int, window: float) -> None:
        self._clock, self._limit, self._window = clock, limit, window
        self._seen: dict[Subject, tuple[int, float]] = {}
        self._network = lru_cache(SUBJECTS)(network_of)

    def __len__(self) -> int:
        return len(self._seen)

    def subject(self, address: str, access: str = "") -> Subject:
        """Return the subject to which failures of this client are counted.

        Existing access keys are counted separately, so that one broken client does not lock out its network.
        """
        return self._network(address), access

    def check(self, subject: Subject) -> None:
        """Raise TooManyFailures if the subject has reached the limit."""
        count, until = self._seen.get(subject, (0, 0.0))
        if count >= self._limit and (wait := until - self._clock.now()) > 0:
            raise TooManyFailures(math.ceil(wait))

    def note(self, subject: Subject) -> None:
        """Count a failure. The first one starts the window."""
        now = self._clock.now()
        count, until = self._seen.pop(subject, (0, 0.0))
        self._seen[subject] = (count + 1, until) if until > now else (1, now + self._window)
        if len(self._seen) > SUBJECTS:
            del self._seen[next(iter(self._seen))]


def network_of(address: str) -> str:
    """Return the IPv4 address, or the /64 network of an IPv6 address, which one client controls completely."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
