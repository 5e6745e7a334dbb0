"""Formats of messages, numbers, durations, sizes and times on console pages."""

from __future__ import annotations

import math

from engine.http.api.times import exact_time
from engine.metrics.histogram import Distribution

_SPANS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"), (0.001, "ms"), (0.000_001, "µs"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))

#: Names of trigger types that the documentation spells differently.
KINDS = {"DEDICATEDGATEWAY": "APIG (dedicated)"}


def kind_name(kind: str) -> str:
    return KINDS.get(kind, kind)


def sentence(text: str) -> str:
    """Return a message as a sentence: with a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "!", "?", "]")) else ".")


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def span(seconds: float) -> str:
    """Format a duration, given in seconds, such as ``1.5 ms``, ``12 s`` or ``3 d``; ``longer`` if it is infinite."""
    if math.isinf(seconds):
        return "longer"
    for unit, name in _SPANS:
        if seconds >= unit:
            return f"{_two_digits(seconds / unit)} {name}"
    return "0 s"


def size(value: float) -> str:
    for unit, name in _SIZES:
        if value >= unit:
            return f"{_two_digits(value / unit)} {name}"
    return f"{value:.0f} bytes"


def clock_time(moment: float | None) -> str:
    """Format a time, given in seconds since the epoch, in UTC to the millisecond; empty for None, 0 and infinity."""
    return "" if not moment or math.isinf(moment) else exact_time(moment).replace("T", " ").rstrip("Z")


def quantile(distribution: Distribution, share: float) -> float | None:
    """Return the upper bound of the histogram bucket in which the quantile ``share`` (0 to 1) lies.

    Return None if the histogram has no observations.
    """
    wanted, seen = distribution.count * share, 0
    for bound, count in zip((*distribution.bounds, math.inf), distribution.counts, strict=True):
        seen += count
        if count and seen >= wanted:
            return bound
    return None


def _two_digits(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0") if value < 9.95 else f"{value:,.0f}"
