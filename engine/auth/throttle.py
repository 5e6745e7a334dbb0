"""Rate limit for failed authentication, by the client's network and access key, in bounded memory."""

from __future__ import annotations

import ipaddress
import math
from functools import lru_cache

from engine.errors import TooManyFailures
from engine.model.clock import Clock

SUBJECTS = 4096  #: tracked subjects; the one without failures for longest is dropped first

Subject = tuple[str, str]  #: network of a client, and its access key if that key exists


class AuthThrottle:
    """Counter of failed authentication per subject, which is a network and optionally an access key.

    A subject with ``limit`` failures is rejected until ``window`` seconds after the first of them.
    """

    def __init__(self, clock: Clock, *, limit: int, window: float) -> None:
        self._clock, self._limit, self._window = clock, limit, window
        self._seen: dict[Subject, tuple[int, float]] = {}
        self._network = lru_cache(SUBJECTS)(network_of)

    def __len__(self) -> int:
        return len(self._seen)

    def subject(self, address: str, access: str = "") -> Subject:
        """Return the subject for which failures of a client are counted.

        ``access`` is the client's access key if the engine has this key, else empty. Failures with an
        existing key are counted apart from other failures of the same network. A broken client thus does not cause the
        rejection of all clients in its network.
        """
        return self._network(address), access

    def check(self, subject: Subject) -> None:
        """Raise TooManyFailures if the subject has reached the limit and its window has not ended."""
        count, until = self._seen.get(subject, (0, 0.0))
        if count >= self._limit and (wait := until - self._clock.now()) > 0:
            raise TooManyFailures(math.ceil(wait))

    def note(self, subject: Subject) -> None:
        """Count a failure of the subject. The first failure after the end of a window starts a new window."""
        now = self._clock.now()
        count, until = self._seen.pop(subject, (0, 0.0))
        self._seen[subject] = (count + 1, until) if until > now else (1, now + self._window)
        if len(self._seen) > SUBJECTS:
            del self._seen[next(iter(self._seen))]


def network_of(address: str) -> str:
    """Return an IPv4 address as given, and the /64 network of an IPv6 address.

    One client usually controls a /64 network completely. An IPv6 address that contains an IPv4 address, such as
    ``::ffff:192.0.2.1``, gives the latter. A text that is no address is returned unchanged.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))
