"""Tab with charts of one function, from the time series of the API, and its figures by source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.http.api.metrics import FunctionSeries, SlaValue
from engine.http.api.routing import Call
from engine.http.console import charts, words
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.pages import PageFamily, get
from engine.http.console.paths import FUNCTION
from engine.metrics.function_metrics import FunctionCounters, FunctionMetrics
from engine.metrics.histogram import Distribution
from engine.model import Function
from engine.model.clock import Clock

TAB = "monitoring"
Values = Sequence[float | None]


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

    def __init__(self, frame: FunctionFrame, metrics: FunctionMetrics | None, clock: Clock) -> None:
        self._frame, self._metrics = frame, metrics
        self._clock, self._started_at = clock, clock.now()

    @get("ConsoleMonitoring", f"{FUNCTION}/monitoring")
    async def show(self, call: Call) -> Reply:
        chosen, function = charts.range_of(call), self._frame.function_of(call)
        reply = await self._frame.send(call, "GET", function, f"/statistics/{chosen.minutes}")
        drawn = FunctionCharts(reply.read(FunctionSeries), chosen)
        young = self._started_at > self._clock.now() - chosen.minutes * 60
        return await self._frame.show(
            call,
            "functions/monitoring.html",
            tab=TAB,
            ranges=charts.RANGES,
            chosen=chosen,
            totals=drawn.totals(),
            charts=drawn.all(),
            table=drawn.table(),
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


class FunctionTotals(Struct, frozen=True, kw_only=True):
    """Figures of a function in the time range of its charts."""

    attempts: int
    errors: int
    refused: int
    average: float | None  #: seconds of an attempt; None: no attempt ended
    longest: float | None
    instances: int  #: now

    @property
    def error_share(self) -> str:
        return f"{100 * self.errors / self.attempts:.1f} % of the attempts" if self.attempts else "no attempts"


class FunctionCharts:
    def __init__(self, series: FunctionSeries, chosen: charts.TimeRange) -> None:
        self._begins = [value.timestamp / 1000 for value in series.count]
        minutes = max(1, round((self._begins[1] - self._begins[0]) / 60)) if len(self._begins) > 1 else 1
        self._axis = charts.TimeAxis(begins=self._begins, minutes=minutes, labels=chosen.ticks)
        self._count, self._errors, self._refused = map(_values, (series.count, series.fail_count, series.reject_count))
        self._function_errors = _values(series.function_error_count)
        self._system_errors = _values(series.system_error_count)
        self._average, self._longest, self._shortest = map(
            _seconds, (series.duration, series.max_duration, series.min_duration)
        )
        self._running, self._instances = _values(series.concurrency_num), _values(series.instance_num)
        self._reserved = _values(series.reserved_instance_num)

    def totals(self) -> FunctionTotals:
        attempts = int(_sum(self._count))
        work = sum((count or 0) * (mean or 0) for count, mean in zip(self._count, self._average, strict=True))
        return FunctionTotals(
            attempts=attempts,
            errors=int(_sum(self._errors)),
            refused=int(_sum(self._refused)),
            average=work / attempts if attempts else None,
            longest=max((value for value in self._longest if value is not None), default=None),
            instances=int((self._instances[-1] or 0) + (self._reserved[-1] or 0)),
        )

    def all(self) -> Sequence[charts.Chart]:
        return [self._attempts(), self._durations(), self._refusals(), self._concurrency()]

    def table(self) -> charts.FigureTable:
        columns = {
            "Attempts": self._count,
            "Function errors": self._function_errors,
            "Engine errors": self._system_errors,
            "Refused": self._refused,
            "Running": self._running,
        }
        durations = {"Average": self._average, "Longest": self._longest, "Shortest": self._shortest}
        rows = [
            (
                self._begins[at],
                [
                    *(_cell(values[at], words.number(values[at] or 0)) for values in columns.values()),
                    *(_cell(values[at], words.span(values[at] or 0)) for values in durations.values()),
                ],
            )
            for at in range(len(self._begins) - 1, -1, -1)
            if self._count[at] is not None
        ]
        return charts.FigureTable(minutes=self._axis.minutes, names=[*columns, *durations], rows=rows)

    def _attempts(self) -> charts.Chart:
        totals = self.totals()
        errors = zip(self._count, self._errors, strict=True)
        good = [None if count is None else count - (failed or 0) for count, failed in errors]
        series = [
            charts.Series(name="Succeeded", kind="success", values=good),
            charts.Series(name="Errors of the function", kind="function-error", values=self._function_errors),
            charts.Series(name="Errors of the engine", kind="system-error", values=self._system_errors),
        ]
        summary = f"{words.number(totals.attempts)} ended, {words.number(totals.errors)} failed"
        return charts.bar_chart("attempts", "Attempts", summary, self._axis, series)

    def _durations(self) -> charts.Chart:
        totals = self.totals()
        summary = "No attempt ended"
        if totals.average is not None and totals.longest is not None:
            summary = f"{words.span(totals.average)} on average, {words.span(totals.longest)} at most"
        series = [
            charts.Series(name="Longest", kind="most", values=self._longest),
            charts.Series(name="Average", kind="average", values=self._average),
            charts.Series(name="Shortest", kind="least", values=self._shortest),
        ]
        return charts.duration_chart("durations", "Duration", summary, self._axis, series)

    def _refusals(self) -> charts.Chart:
        refused = int(_sum(self._refused))
        summary = f"{words.number(refused)} refused, because a limit was reached"
        series = [charts.Series(name="Refused", kind="refused", values=self._refused)]
        return charts.bar_chart("refusals", "Throttled", summary, self._axis, series)

    def _concurrency(self) -> charts.Chart:
        most = max((value for value in self._running if value is not None), default=0)
        series = [
            charts.Series(name="Instances", kind="instances", values=self._instances),
            charts.Series(name="Running on average", kind="average", values=self._running),
        ]
        if any(self._reserved):
            series.append(charts.Series(name="Reserved instances", kind="most", values=self._reserved))
        summary = f"Up to {words.number(most)} ran at a time, on average of a period"
        return charts.line_chart("concurrency", "Concurrency", summary, self._axis, series)


def _values(series: Sequence[SlaValue]) -> Values:
    return [None if value.value < 0 else value.value for value in series]


def _seconds(series: Sequence[SlaValue]) -> Values:
    return [None if value is None else value / 1000 for value in _values(series)]


def _sum(values: Values) -> float:
    return sum(value for value in values if value is not None)


def _cell(value: float | None, text: str) -> str:
    return "" if value is None else text
