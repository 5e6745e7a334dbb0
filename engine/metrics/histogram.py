"""Histograms with fixed ranges of values (buckets). Counting a value takes one binary search."""

from __future__ import annotations

from bisect import bisect_left

from msgspec import Struct

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0, 3600.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Distribution(Struct, frozen=True, kw_only=True):
    """Frozen state of a histogram: counts of values by range, and ``total``, the sum of all values.

    ``bounds`` are the upper bounds of the ranges. ``counts`` has one more entry, for values above the last bound.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)


class Histogram:
    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count a value. A negative one, such as a duration over a step of the clock back, counts as 0."""
        if value < 0.0:
            value = 0.0
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def add(self, other: Histogram) -> None:
        """Add the values of another histogram with the same ranges."""
        self._counts = [own + more for own, more in zip(self._counts, other._counts, strict=True)]
        self._total += other._total

    def snapshot(self) -> Distribution:
        return Distribution(bounds=self._bounds, counts=tuple(self._counts), total=self._total)
