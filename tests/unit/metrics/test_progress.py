from __future__ import annotations

import pytest

from engine.metrics.progress import Progress
from tests.doubles import ManualClock


@pytest.mark.parametrize(
    ("part", "work", "stalled"),
    [("part", 1, 30.0), ("part", 2, 0.0), ("part", None, 0.0), ("other", 1, 0.0)],
    ids=["the same work", "other work, which is progress", "no possible work", "work of another part"],
)
def test_the_same_possible_work_of_a_part_at_two_looks_is_a_stall_of_the_time_between(
    part: str, work: object, stalled: float
) -> None:
    clock = ManualClock()
    progress = Progress(clock.now)
    first = progress.stalled("part", 1)
    clock.advance(30)

    assert (first, progress.stalled(part, work)) == (0.0, stalled)


@pytest.mark.parametrize(("between", "stalled"), [(2, 5.0), (None, 0.0)], ids=["other work", "no possible work"])
def test_a_stall_is_counted_from_the_last_progress(between: object, stalled: float) -> None:
    clock = ManualClock()
    progress = Progress(clock.now)
    progress.stalled("part", 1)
    clock.advance(30)
    progress.stalled("part", between)
    clock.advance(5)

    assert progress.stalled("part", between or 1) == stalled
