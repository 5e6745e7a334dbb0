"""Geometry of the console's charts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from engine.http.console.charts import Series, TimeAxis, bar_chart, duration_chart, line_chart

NOON = 1_700_000_000.0 // 86_400 * 86_400 + 43_200
TEXT = ("a", "A", "Some")


def axis(periods: int, minutes: int = 1) -> TimeAxis:
    begins = [NOON + number * minutes * 60 for number in range(periods)]
    return TimeAxis(begins=begins, minutes=minutes, labels=("before", "now"))


def series(*values: float | None, name: str = "Done") -> Series:
    return Series(name=name, kind=name.lower(), values=values)


def test_bars_lie_on_each_other() -> None:
    chart = bar_chart(*TEXT, axis(2), [series(1, 3), series(1, None, name="Lost")])

    assert [(bar.kind, round(bar.y), round(bar.height)) for bar in chart.bars] == [
        ("done", 67, 33), ("lost", 33, 33), ("done", 0, 100),
    ]  # fmt: skip
    assert chart.ticks == ["3", "2", "1", "0"]
    assert chart.legend == [("done", "Done"), ("lost", "Lost")]


def test_a_period_shows_its_numbers() -> None:
    chart = bar_chart(*TEXT, axis(2, 15), [series(1200, None), series(None, None, name="Lost")])

    assert [slot.title for slot in chart.slots] == ["12:00 to 12:15 UTC: 1,200 done", "12:15 to 12:30 UTC: nothing"]


def test_an_empty_chart_has_an_axis() -> None:
    chart = bar_chart(*TEXT, axis(15), [series(*[None] * 15)])

    assert (chart.bars, chart.ticks) == ([], ["2", "1", "0"])


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 12, 99, 101, 247, 999, 12_345, 5_000_001])
def test_ticks_are_round_numbers_and_the_largest_value_fits(most: int) -> None:
    chart = bar_chart(*TEXT, axis(1), [series(most)])
    ticks = [int(tick.replace(",", "")) for tick in chart.ticks]

    assert ticks[0] >= most
    assert ticks[0] <= 2 * most or most < 3
    assert ticks[-1] == 0
    assert len({one - other for one, other in pairwise(ticks)}) == 1


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    chart = line_chart(*TEXT, axis(5), [series(4, 2, None, 1, 1)], area=True)

    assert chart.lines[0].path == "M0 0H10V50H20M30 75H40V75H50"
    assert chart.lines[0].area.count("Z") == 4


def test_durations_have_a_tick_for_each_power_of_ten() -> None:
    chart = duration_chart(*TEXT, axis(4), [series(0.005, 5.0, None, math.inf)])

    assert chart.ticks == ["10 s", "1 s", "100 ms", "10 ms", "1 ms"]
    assert chart.lines[0].path.startswith("M0 82.53H10V7.53H20M30 0H40")


def test_durations_that_are_not_known_have_an_axis() -> None:
    assert duration_chart(*TEXT, axis(2), [series(None, None)]).ticks == ["1 s", "100 ms", "10 ms", "1 ms"]
    assert duration_chart(*TEXT, axis(2), [series(0.0, None)]).lines[0].path == "M0 100H10"
