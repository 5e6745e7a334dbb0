from __future__ import annotations

from engine.metrics.histogram import Histogram


def test_observations_fall_into_the_first_bucket_that_holds_them() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)

    snapshot = histogram.snapshot()

    assert (snapshot.counts, snapshot.count, snapshot.total) == ((2, 1, 1), 4, 12.0)


def test_a_snapshot_stays_as_it_was() -> None:
    histogram = Histogram((1.0,))
    snapshot = histogram.snapshot()

    histogram.observe(1.0)

    assert snapshot.count == 0


def test_a_negative_duration_counts_as_none() -> None:
    """Such durations come from a step of the clock back during an attempt."""
    times = Histogram((0.1, 1.0))

    times.observe(-5.0)

    assert (times.snapshot().counts, times.snapshot().total) == ((1, 0, 0), 0.0)
