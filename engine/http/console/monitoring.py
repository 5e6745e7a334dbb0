"""Tab with charts of one function, and its figures by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.http.api.metrics import FunctionSeries
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.function_charts import FunctionCharts
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.pages import PageFamily
from engine.http.console.paths import FUNCTION
from engine.http.console.time_ranges import DAY, HOUR, QUARTER, range_of
from engine.metrics.function_metrics import FunctionCounters, FunctionMetrics
from engine.metrics.histogram import Distribution
from engine.model import Function
from engine.model.clock import Clock

TAB = "monitoring"
RANGES = (QUARTER, HOUR, DAY)


class SourceRow(Struct, frozen=True, kw_only=True):
    """Counts of one source of a function since the engine started."""

    source: str
    received: int
    refused: int
    ended: Mapping[str, int]  #: by state
    waits: Distribution
    runs: Distribution


class MonitoringPage(PageFamily):
    """Page of a function's charts. ``metrics`` is None if metrics by function are off."""

    def __init__(self, frame: FunctionFrame, api: ApiRequests, metrics: FunctionMetrics | None, clock: Clock) -> None:
        self._frame, self._api, self._metrics = frame, api, metrics
        self._clock, self._started_at = clock, clock.now()

    def pages(self) -> Mapping[str, Handler]:
        return {f"{FUNCTION}/{TAB}": self.show}

    async def show(self, call: Call) -> Reply:
        chosen, function = range_of(call, RANGES), self._frame.function_of(call)
        reply = await self._api.send(call, "GET", self._frame.api_path(function, f"/statistics/{chosen.minutes}"))
        charts = FunctionCharts(reply.read(FunctionSeries), chosen)
        young = self._started_at > self._clock.now() - chosen.minutes * 60
        return await self._frame.show(
            call,
            "functions/monitoring.html",
            tab=TAB,
            ranges=RANGES,
            chosen=chosen,
            totals=charts.totals(),
            charts=charts.charts(),
            table=charts.table(),
            since=self._started_at if young else None,
            sources=None if self._metrics is None else _sources(self._metrics, function),
        )


def _sources(metrics: FunctionMetrics, function: Function) -> Sequence[SourceRow]:
    """Return a row for each source of a function, the one with the most requests first."""
    names = (function.project, function.package, function.name)
    rows = [_row(labels[3], counters) for labels, counters in metrics.all() if labels[:3] == names]
    return sorted(rows, key=lambda row: -row.received)


def _row(source: str, counters: FunctionCounters) -> SourceRow:
    return SourceRow(
        source=source,
        received=counters.accepted + counters.refused,
        refused=counters.refused,
        ended=dict(counters.ended),
        waits=counters.wait_seconds.snapshot(),
        runs=counters.run_seconds.snapshot(),
    )
