"""Words, values and charts of pages."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from engine.http.api.invocations import CallResult
from engine.http.console.api_requests import ApiReply
from engine.http.console.charts import Series, TimeAxis, bar_chart, duration_chart, line_chart
from engine.http.console.functions.trials import run_of
from engine.http.console.invocations.details import SHOWN, body_of, pretty
from engine.http.console.paths import HOME
from engine.http.console.words import clock_time, number, quantile, size, span
from engine.metrics.histogram import Histogram
from tests.support.http_app import PROJECT
from tests.support.triggering import api_client, house


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

    snapshot = waits.snapshot()

    assert [quantile(snapshot, share) for share in (0.5, 0.75, 0.99)] == [0.1, 1.0, math.inf]


# --- events and results --------------------------------------------------------------------------------------


DEEP = "[" * 3000 + "]" * 3000
EVENT = "[" * 900 + "]" * 900  #: as deep as the API takes it
#: Bodies whose indents would be many times longer than they are.
HOSTILE = [DEEP, "[" * 30 + "1," * 30_000 + "1" + "]" * 30, '{"a":' * 5000 + "1" + "}" * 5000]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_deeply_nested_result_is_shown_as_it_is(text: str) -> None:
    call = CallResult(status=200, request_id="r", result=text, log="")

    assert body_of(text.encode()).text == text
    assert run_of(ApiReply(status=200, headers={}, body=msgspec.json.encode(call))).result == text[:SHOWN]


def test_other_json_gets_line_breaks() -> None:
    assert pretty(b'{"a":1}') == '{\n  "a": 1\n}'
    assert pretty(b"[[[1,[2]]]]").count("\n") == 9
    assert pretty(b"no json \xff") == "no json \ufffd"


async def test_pages_of_a_deeply_nested_event_are_small_and_offer_the_file(tmp_path: Path) -> None:
    async with house(tmp_path) as place, api_client(place) as client:
        path = f"/v2/{PROJECT}/fgs/functions/hello/invocations-async"
        sent = await client.post(path, content=EVENT, headers={"content-type": "application/json"})
        assert sent.status_code == 202, sent.text
        here = f"{HOME}projects/{PROJECT}/invocations/{sent.json()['request_id']}"
        page = await client.get(here)
        file = await client.get(f"{here}/event")
        await client.post(path.removesuffix("invocations-async") + "async-invocations/cancel", json={"status": "WAIT"})
        editor = await client.get(f"{here}/again")

    assert max(len(page.content), len(editor.content)) < 100_000
    assert f'href="{here}/event">Download' in page.text
    assert file.text == EVENT


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
