"""Start rates of functions: one token bucket each. Uses neither clock nor event loop; callers pass the time in seconds.

A start takes a token. ``rate`` tokens are added in a second, up to ``burst``. A bucket without a whole token is *spent*
until the next one is complete. Nothing of this is on disk: after a restart, or when another engine takes over, each
bucket is full.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf, nextafter

from msgspec import Struct

_WHOLE = 1 - 1e-6  #: tokens that count as one, because sums of times are not exact


class _Bucket(Struct):
    rate: float  #: tokens added in one second
    burst: int
    tokens: float
    at: float  #: time of ``tokens``
    next_at: float = 0.0  #: time of the next whole token, while there is none

    def fill(self, now: float) -> None:
        self.tokens = min(self.burst, self.tokens + self.rate * max(0.0, now - self.at))
        self.at = max(self.at, now)


class Rates:
    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}
        self._spent: list[tuple[float, int]] = []  #: heap of next token and function; only its valid entries count

    def __bool__(self) -> bool:
        return bool(self._buckets)

    def set(self, function_id: int, rate: float, burst: int, now: float) -> bool:
        """Set the rate of a function; 0: no limit. Return True if its bucket is spent. A new bucket is full."""
        if not rate:
            self._buckets.pop(function_id, None)
            return False
        bucket = self._buckets.get(function_id)
        if bucket is None:
            bucket = self._buckets[function_id] = _Bucket(rate=rate, burst=burst, tokens=burst, at=now)
        bucket.fill(now)
        bucket.rate, bucket.burst, bucket.tokens = rate, burst, min(bucket.tokens, burst)
        return self._note(function_id, bucket)

    def take(self, function_id: int, now: float) -> bool:
        """Take a token for a start. Return True if the bucket is spent then."""
        bucket = self._buckets.get(function_id)
        if bucket is None:
            return False
        bucket.fill(now)
        bucket.tokens = max(0.0, bucket.tokens - 1)
        return self._note(function_id, bucket)

    def refund(self, function_id: int) -> bool:
        """Give back the token of a start that was undone. Return True if the bucket is spent nevertheless."""
        bucket = self._buckets.get(function_id)
        if bucket is None:
            return False
        bucket.tokens = min(bucket.burst, bucket.tokens + 1)
        return self._note(function_id, bucket)

    def renewed(self, now: float) -> Iterator[int]:
        """Yield the functions whose buckets were spent, and have a whole token at ``now``. Each is yielded once."""
        while self._spent and self._spent[0][0] <= now:
            moment, function_id = heappop(self._spent)
            bucket = self._buckets.get(function_id)
            if bucket is not None and bucket.next_at == moment:
                bucket.fill(now)
                if not self._note(function_id, bucket):
                    yield function_id

    def next_token(self, function_id: int | None = None) -> float | None:
        """Return when the first of all spent buckets, or that of a function, gets a token. None: no bucket is spent."""
        if function_id is not None:
            bucket = self._buckets.get(function_id)
            return bucket.next_at or None if bucket is not None else None
        while self._spent and not self._is_valid(*self._spent[0]):
            heappop(self._spent)
        return self._spent[0][0] if self._spent else None

    def _is_valid(self, moment: float, function_id: int) -> bool:
        bucket = self._buckets.get(function_id)
        return bucket is not None and bucket.next_at == moment

    def _note(self, function_id: int, bucket: _Bucket) -> bool:
        if bucket.tokens >= _WHOLE:
            bucket.next_at = 0.0
            return False
        # Later than ``at`` in any case, so that ``renewed`` ends although a high rate adds less than a float can tell.
        bucket.next_at = max(bucket.at + (1 - bucket.tokens) / bucket.rate, nextafter(bucket.at, inf))
        heappush(self._spent, (bucket.next_at, function_id))
        return True
