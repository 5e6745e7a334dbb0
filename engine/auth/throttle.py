"""Delay of refusals after repeated failures to authenticate, by the client's network and access key.

Only failures are delayed: a valid signature or token is served at once, whatever failed before. All memory is bounded.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache
from heapq import heappop, heappush

from engine.asgi.addresses import network_of
from engine.errors import TooManyFailures
from engine.model.clock import Clock

SUBJECTS = 4096  #: tracked subjects; the one without failures for longest is dropped first
DELAY = 1.0  #: seconds by which a refusal beyond the limit is delayed at least
WAITING = 2048  #: delayed refusals of all clients
OF_ONE = 256  #: delayed refusals of one network
AT_ONCE = 8  #: refusals of one network in ``DELAY`` seconds; each further ``AT_ONCE`` wait one more ``DELAY``

Subject = tuple[str, str]  #: network of a client, and its access key if that key exists


class AuthThrottle:
    """Counter of failed authentication per subject, which is a network and optionally an access key.

    After ``limit`` failures of a subject, its further refusals are delayed by ``delay`` seconds or more, until
    ``window`` seconds after the first of them. A network gets ``AT_ONCE`` of them in ``delay`` seconds, however many
    connections it has. If too many refusals are delayed already, the client gets TooManyFailures at once.
    """

    def __init__(self, clock: Clock, *, limit: int, window: float, delay: float = DELAY) -> None:
        self._clock, self._limit, self._window, self._delay = clock, limit, window, delay
        self._seen: dict[Subject, tuple[int, float]] = {}
        self._network = lru_cache(SUBJECTS)(network_of)
        # Entries expire by time, so a client that disconnects meanwhile needs no clean-up.
        self._delayed: list[tuple[float, str]] = []  #: heap
        self._of_network: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._seen)

    @property
    def waiting(self) -> int:
        """Number of refusals that are delayed now."""
        self._leave(self._clock.now())
        return len(self._delayed)

    def subject(self, address: str, access: str = "") -> Subject:
        """Return the subject for which failures of a client are counted.

        ``access`` is the client's access key if the engine has this key, else empty. Failures with an existing key are
        counted apart from other failures of the same network.
        """
        return self._network(address), access

    def note(self, subject: Subject) -> float:
        """Count a failure of the subject. Return the seconds by which its refusal must be delayed.

        The first failure after the end of a window starts a new window. Raises TooManyFailures if the refusal would be
        delayed, and too many are.
        """
        now = self._clock.now()
        count, until = self._seen.pop(subject, (0, 0.0))
        count, until = (count + 1, until) if until > now else (1, now + self._window)
        self._seen[subject] = count, until
        if len(self._seen) > SUBJECTS:
            del self._seen[next(iter(self._seen))]
        if count <= self._limit:
            return 0.0
        return self._enter(subject[0], now, until)

    def _enter(self, network: str, now: float, until: float) -> float:
        self._leave(now)
        before = self._of_network[network]
        if len(self._delayed) >= WAITING or before >= OF_ONE:
            raise TooManyFailures(math.ceil(until - now))
        delay = self._delay * (1 + before // AT_ONCE)
        heappush(self._delayed, (now + delay, network))
        self._of_network[network] = before + 1
        return delay

    def _leave(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            _, network = heappop(self._delayed)
            self._of_network[network] -= 1
            if not self._of_network[network]:
                del self._of_network[network]
