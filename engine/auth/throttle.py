"""How often who failed to authenticate, so that nobody may try for ever; what is remembered has a bound."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache

from engine.errors import TooManyFailures
from engine.model.clock import Clock

SUBJECTS = 4096  #: remembered at most; the longest unseen one is forgotten first

Subject = tuple[str, str]  #: a client's network, and the access key it tried if that key exists


class AuthThrottle:
    """``limit`` failures within ``window`` seconds, and the subject must wait for the window's end."""

    def __init__(self, clock: Clock, *, limit: int, window: float) -> None:
        self._clock, self._limit, self._window = clock, limit, window
        self._seen: dict[Subject, tuple[int, float]] = {}
        self._network = lru_cache(SUBJECTS)(network_of)

    def __len__(self) -> int:
        return len(self._seen)

    def subject(self, address: str, access: str = "") -> Subject:
        """Who is counted. A known key is counted apart, so that one broken client does not lock out its neighbours."""
        return self._network(address), access

    def check(self, subject: Subject) -> None:
        """Raises TooManyFailures."""
        count, until = self._seen.get(subject, (0, 0.0))
        if count >= self._limit and (wait := until - self._clock.now()) > 0:
            raise TooManyFailures(math.ceil(wait))

    def note(self, subject: Subject) -> None:
        now = self._clock.now()
        count, until = self._seen.pop(subject, (0, 0.0))
        self._seen[subject] = (count + 1, until) if until > now else (1, now + self._window)
        if len(self._seen) > SUBJECTS:
            del self._seen[next(iter(self._seen))]


def network_of(address: str) -> str:
    """An IPv6 client owns all the addresses of its /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
