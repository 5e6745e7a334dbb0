"""Text forms of amounts, times and sizes in the console."""

from __future__ import annotations

import math

import pytest

from engine.http.console.words import clock_time, number, quantile, size, span
from engine.metrics.histogram import Histogram


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.0005, "500 µs"),
        (0.0025, "2.5 ms"),
        (0.25, "250 ms"),
        (9.94, "9.9 s"),
        (59.0, "59 s"),
        (90.0, "1.5 min"),
        (86_400.0, "1 d"),
        (math.inf, "longer"),
    ],
)
def test_a_span_is_told_in_two_figures(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_sizes_and_numbers_are_short() -> None:
    assert [size(value) for value in (0, 1023, 1536, 256 << 20, 20 << 30)] == [
        "0 bytes",
        "1023 bytes",
        "1.5 KiB",
        "256 MiB",
        "20 GiB",
    ]
    assert [number(value) for value in (0.0, 1234567.0, 1.25)] == ["0", "1,234,567", "1.2"]


def test_moments_are_utc_as_the_command_line_has_them() -> None:
    assert clock_time(1_700_000_000.5) == "2023-11-14 22:13:20.500"
    assert [clock_time(moment) for moment in (None, 0.0, math.inf)] == [""] * 3


def test_a_quantile_is_the_bound_that_so_many_stay_within() -> None:
    waits = Histogram((0.1, 1.0, 10.0))
    assert quantile(waits.snapshot(), 0.5) is None
    for wait in (0.05, 0.05, 0.5, 50.0):
        waits.observe(wait)

    found = waits.snapshot()

    assert [quantile(found, share) for share in (0.5, 0.75, 0.99)] == [0.1, 1.0, math.inf]
