"""Charts of the console: time ranges, and geometry of SVG, which the server draws, with axes, a text on hover, a table.

A chart fills the width of its place. The SVG is stretched, so the labels of the axes stand beside it: ticks are spaced
evenly from top to bottom, and times from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct

from engine.errors import BadQuery
from engine.http.api.routing import Call
from engine.http.console import words

STEP = 10  #: width of a period
HEIGHT = 100
GAP = 1.5  #: between two bars
_MANTISSAS = (1, 2, 2.5, 5, 10)

Format = Callable[[float], str]


class Series(Struct, frozen=True, kw_only=True):
    name: str  #: as the legend and the table name it
    kind: str  #: CSS class, which gives the color
    values: Sequence[float | None]  #: by period; None: not known


class TimeAxis(Struct, frozen=True, kw_only=True):
    """Periods from the oldest to the newest."""

    begins: Sequence[float]  #: in seconds since the epoch
    minutes: int  #: length of a period
    labels: Sequence[str]  #: at equal distances from the begin of the first period to now

    def name(self, number: int) -> str:
        begin = self.begins[number]
        return f"{_clock(begin)} to {_clock(begin + self.minutes * 60)} UTC"


class Bar(Struct, frozen=True, kw_only=True):
    kind: str
    x: float
    y: float
    width: float
    height: float


class Line(Struct, frozen=True, kw_only=True):
    kind: str
    path: str
    area: str  #: path below the line; empty: not filled


class Slot(Struct, frozen=True, kw_only=True):
    """Period of a chart, with the text that is shown when the pointer is on it."""

    x: int
    title: str


class Chart(Struct, frozen=True, kw_only=True):
    id: str
    title: str
    summary: str  #: in a sentence, also for those who do not see the chart
    width: int
    ticks: Sequence[str]  #: from top to bottom
    times: Sequence[str]
    legend: Sequence[tuple[str, str]]  #: kind and name; empty: one series
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    slots: Sequence[Slot] = ()


def bar_chart(id: str, title: str, summary: str, axis: TimeAxis, series: Sequence[Series]) -> Chart:
    """Draw one bar for each period, in which the series lie on each other."""
    sums = [sum(row.values[at] or 0 for row in series) for at in range(len(axis.begins))]
    top, parts = _scale(max(sums, default=0))
    bars: list[Bar] = []
    for at in range(len(axis.begins)):
        below = 0.0
        for row in series:
            if value := row.values[at]:
                height = HEIGHT * value / top
                y = HEIGHT - below - height
                bars.append(Bar(kind=row.kind, x=at * STEP + GAP / 2, y=y, width=STEP - GAP, height=height))
                below += height
    return _chart(id, title, summary, axis, series, [top * part / parts for part in range(parts, -1, -1)], bars=bars)


def line_chart(
    id: str, title: str, summary: str, axis: TimeAxis, series: Sequence[Series], *, area: bool = False
) -> Chart:
    """Draw a stepped line for each series, with a gap where its value is not known."""
    top, parts = _scale(max((value for row in series for value in row.values if value is not None), default=0))

    def height(value: float) -> float:
        return HEIGHT * value / top

    lines = [_line(row, height, area=area) for row in series]
    return _chart(id, title, summary, axis, series, [top * part / parts for part in range(parts, -1, -1)], lines=lines)


def duration_chart(id: str, title: str, summary: str, axis: TimeAxis, series: Sequence[Series]) -> Chart:
    """Draw a stepped line of durations for each series, on a logarithmic scale with one tick for each power of ten."""
    known = [value for row in series for value in row.values if value is not None and 0 < value < math.inf]
    highest = math.ceil(math.log10(max(known, default=1.0)) - 1e-9)
    lowest = min(math.floor(math.log10(min(known, default=0.001)) + 1e-9), highest - 2)

    def height(value: float) -> float:
        if value <= 0:
            return 0.0
        power = highest if math.isinf(value) else math.log10(value)
        return HEIGHT * (power - lowest) / (highest - lowest)

    lines = [_line(row, height) for row in series]
    ticks = [10.0**power for power in range(highest, lowest - 1, -1)]
    return _chart(id, title, summary, axis, series, ticks, lines=lines, show=words.span)


def _chart(
    id: str,
    title: str,
    summary: str,
    axis: TimeAxis,
    series: Sequence[Series],
    ticks: Sequence[float],
    *,
    bars: Sequence[Bar] = (),
    lines: Sequence[Line] = (),
    show: Format = words.number,
) -> Chart:
    return Chart(
        id=id,
        title=title,
        summary=summary,
        width=len(axis.begins) * STEP,
        ticks=[show(value) for value in ticks],
        times=axis.labels,
        legend=[(row.kind, row.name) for row in series] if len(series) > 1 else [],
        bars=bars,
        lines=lines,
        slots=[
            Slot(x=at * STEP, title=f"{axis.name(at)}: {_values(series, at, show)}") for at in range(len(axis.begins))
        ],
    )


def _values(series: Sequence[Series], at: int, show: Format) -> str:
    known = [(row.values[at], row.name) for row in series]
    texts = [f"{show(value)} {name.lower()}" for value, name in known if value is not None]
    return ", ".join(texts) or "nothing"


def _line(series: Series, height: Callable[[float], float], *, area: bool = False) -> Line:
    path, filled, drawing = list[str](), list[str](), False
    for at, value in enumerate(series.values):
        if value is None:
            drawing = False
            continue
        x, y = at * STEP, round(HEIGHT - height(value), 2)
        path.append(f"{'V' if drawing else f'M{x} '}{y:g}H{x + STEP}")
        filled.append(f"M{x} {HEIGHT}V{y:g}H{x + STEP}V{HEIGHT}Z")
        drawing = True
    return Line(kind=series.kind, path="".join(path), area="".join(filled) if area else "")


def _scale(most: float) -> tuple[float, int]:
    """Return a round number that is not below ``most``, and into how many parts the ticks divide it."""
    if most <= 4:
        top = max(2, math.ceil(most))
        return float(top), top
    scales: list[tuple[float, int]] = []
    for parts in (4, 5, 3):
        power = 10.0 ** math.floor(math.log10(most / parts))
        steps = (mantissa * power for mantissa in _MANTISSAS)
        scales += [(step * parts, parts) for step in steps if step * parts >= most and step == int(step)]
    return min(scales, key=lambda scale: scale[0])


def _clock(moment: float) -> str:
    return words.clock_time(moment)[11:16]


class TimeRange(Struct, frozen=True, kw_only=True):
    name: str  #: in the query
    label: str  #: of the link
    title: str
    minutes: int
    size: int  #: minutes of a period
    ticks: tuple[str, ...]


RANGES = (
    TimeRange(
        name="15min",
        label="15 minutes",
        title="Last 15 minutes",
        minutes=15,
        size=1,
        ticks=("15 min", "10 min", "5 min", "now"),
    ),
    TimeRange(
        name="1h", label="1 hour", title="Last hour", minutes=60, size=1, ticks=("60 min", "40 min", "20 min", "now")
    ),
    TimeRange(
        name="24h",
        label="24 hours",
        title="Last 24 hours",
        minutes=1440,
        size=15,
        ticks=("24 h", "18 h", "12 h", "6 h", "now"),
    ),
)


class FigureTable(Struct, frozen=True, kw_only=True):
    """Values of all series as text, newest period first, without periods in which nothing happened."""

    minutes: int
    names: Sequence[str]
    rows: Sequence[tuple[float, Sequence[str]]]


def range_of(call: Call) -> TimeRange:
    """Return the range that the query parameter ``range`` names, by default the first. Raises BadQuery."""
    name = call.text("range") or RANGES[0].name
    for time_range in RANGES:
        if time_range.name == name:
            return time_range
    raise BadQuery("range", name, f"must be one of {', '.join(time_range.name for time_range in RANGES)}")
