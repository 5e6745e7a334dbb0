from __future__ import annotations

from engine.metrics.progress import Progress
from tests.doubles import ManualClock


def test_the_same_possible_work_at_two_looks_is_a_stall_of_the_time_between() -> None:
    clock = ManualClock()
    progress = Progress(clock.now)

    first = progress.stalled("part", ("start", 1))
    clock.advance(30)

    assert (first, progress.stalled("part", ("start", 1))) == (0.0, 30.0)


def test_other_work_is_progress() -> None:
    clock = ManualClock()
    progress = Progress(clock.now)
    progress.stalled("part", ("start", 1))
    clock.advance(30)

    assert progress.stalled("part", ("start", 2)) == 0.0
    clock.advance(5)
    assert progress.stalled("part", ("start", 2)) == 5.0


def test_a_look_without_possible_work_ends_a_stall() -> None:
    clock = ManualClock()
    progress = Progress(clock.now)
    progress.stalled("part", ("start", 1))
    clock.advance(30)

    assert progress.stalled("part", None) == 0.0
    assert progress.stalled("part", ("start", 1)) == 0.0


def test_parts_are_looked_at_separately() -> None:
    clock = ManualClock()
    progress = Progress(clock.now)
    progress.stalled("part", ("start", 1))
    clock.advance(30)

    assert progress.stalled("other", ("start", 1)) == 0.0
