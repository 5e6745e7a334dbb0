"""Time ranges of charts, which the query of a page chooses, and the table beside the charts."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.errors import BadQuery
from engine.http.api.routing import Call


class TimeRange(Struct, frozen=True, kw_only=True):
    name: str  #: in the query
    label: str  #: of the link
    title: str
    minutes: int
    size: int  #: minutes of a period
    ticks: tuple[str, ...]


QUARTER = TimeRange(
    name="15min",
    label="15 minutes",
    title="Last 15 minutes",
    minutes=15,
    size=1,
    ticks=("15 min", "10 min", "5 min", "now"),
)
HOUR = TimeRange(
    name="1h", label="1 hour", title="Last hour", minutes=60, size=1, ticks=("60 min", "40 min", "20 min", "now")
)
DAY = TimeRange(
    name="24h",
    label="24 hours",
    title="Last 24 hours",
    minutes=1440,
    size=15,
    ticks=("24 h", "18 h", "12 h", "6 h", "now"),
)


class FigureTable(Struct, frozen=True, kw_only=True):
    """Values of all series as text, newest period first, without periods in which nothing happened."""

    minutes: int
    names: Sequence[str]
    rows: Sequence[tuple[float, Sequence[str]]]


def range_of(call: Call, allowed: Sequence[TimeRange]) -> TimeRange:
    """Return the range that the query parameter ``range`` names, by default the first. Raises BadQuery."""
    name = call.text("range") or allowed[0].name
    for one in allowed:
        if one.name == name:
            return one
    raise BadQuery("range", name, f"must be one of {', '.join(one.name for one in allowed)}")
