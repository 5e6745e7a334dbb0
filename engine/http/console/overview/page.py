"""Overview, the first page of the console: what needs attention, the state of the engine now, and charts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.http.api.health import HealthChecks
from engine.http.api.routing import BASE, Call
from engine.http.console import charts, words
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.overview.concerns import ProjectConcerns, engine_concerns
from engine.http.console.pages import PageFamily, Pages, get, post, projects_for, see_other
from engine.http.console.paths import HOME
from engine.metrics.histogram import SECONDS, Distribution
from engine.metrics.prometheus import Family
from engine.metrics.samples import Period, Sample
from engine.metrics.usage import Usage

PROJECTS = 10  #: projects whose concerns are shown
SHOWN = 12  #: concerns that are shown at once; the others are folded


class OverviewPage(PageFamily):
    """Page of the engine's state. ``figures`` returns the metrics that /metrics shows."""

    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        health: HealthChecks,
        figures: Callable[[], Iterable[Family]],
        usage: Usage,
        concerns: ProjectConcerns,
        api: ApiRequests,
    ) -> None:
        self._pages, self._catalog, self._health, self._figures = pages, catalog, health, figures
        self._usage, self._concerns, self._api = usage, concerns, api

    @post("ConsoleAcceptClock", f"{HOME}clock/accept")
    async def accept_clock(self, call: Call, form: Form) -> Reply:
        project = projects_for(call, self._catalog)[0]
        await self._api.send(call, "POST", f"{BASE.format(project_id=project)}/clock/accept")
        return see_other(HOME, "The clock is accepted.")

    @get("ConsoleOverview", HOME)
    async def show(self, call: Call) -> Reply:
        chosen = charts.range_of(call)
        figures = list(self._figures())
        single = {figure.name: figure.samples[0][1] for figure in figures if not figure.labels}
        times = {name: figure for name, figure in single.items() if isinstance(figure, Distribution)}
        value = {name: figure for name, figure in single.items() if not isinstance(figure, Distribution)}
        values = {figure.name: _nonzero(figure) for figure in figures if figure.labels}
        concerns = list(engine_concerns(self._health, value, values["held"]))
        for project in projects_for(call, self._catalog)[:PROJECTS]:
            concerns += await self._concerns.of(call, project)
        drawn = EngineCharts(self._usage, chosen)
        return await self._pages.show(
            call,
            "overview.html",
            ready=not self._health.ready(),
            concerns=sorted(concerns, key=lambda concern: not concern.urgent),
            shown=SHOWN,
            about=self._health.about(""),
            value=value,
            values=values,
            times=times,
            ranges=charts.RANGES,
            chosen=chosen,
            charts=drawn.all(),
            table=drawn.table(),
        )


def _nonzero(figure: Family) -> Mapping[str, float]:
    """Return the nonzero values of a metric by the value of its label, the largest first."""
    values = {label: value for [label], value in figure.samples if value and not isinstance(value, Distribution)}
    return dict(sorted(values.items(), key=lambda item: -item[1]))


class EngineCharts:
    """Charts and table of one time range."""

    def __init__(self, usage: Usage, chosen: charts.TimeRange) -> None:
        self._waiting_now = usage.waiting
        self._periods = usage.periods(chosen.minutes, chosen.size)
        self._samples = [period.sample or Sample() for period in self._periods]
        self._axis = charts.TimeAxis(
            begins=[period.begin for period in self._periods], minutes=chosen.size, labels=chosen.ticks
        )
        self._sum = Sample()
        for sample in self._samples:
            self._sum.add(sample)

    def all(self) -> Sequence[charts.Chart]:
        return [self._accepted(), self._ended(), self._waiting(), self._waits()]

    def table(self) -> charts.FigureTable:
        names = (
            "Accepted",
            "Sync calls",
            "Refused",
            "Succeeded",
            "Failed",
            "Discarded",
            "Waiting",
            "Half started within",
            "99 %",
        )
        rows = [(period.begin, _cells(period)) for period in reversed(self._periods) if period.sample is not None]
        return charts.FigureTable(minutes=self._axis.minutes, names=names, rows=rows)

    def _accepted(self) -> charts.Chart:
        total = self._sum
        summary = (
            f"{words.number(total.accepted)} asynchronous requests, {words.number(total.called)} synchronous calls;"
            f" {words.number(total.refused)} refused"
        )
        series = [
            self._series("Asynchronous", "accepted", lambda sample: sample.accepted),
            self._series("Synchronous", "called", lambda sample: sample.called),
            self._series("Refused", "refused", lambda sample: sample.refused),
        ]
        return charts.bar_chart("accepted", "Accepted", summary, self._axis, series)

    def _ended(self) -> charts.Chart:
        total = self._sum
        summary = (
            f"{words.number(total.succeeded)} asynchronous invocations succeeded, {words.number(total.failed)} failed,"
            f" {words.number(total.discarded)} were discarded"
        )
        series = [
            self._series("Succeeded", "success", lambda sample: sample.succeeded),
            self._series("Failed", "fail", lambda sample: sample.failed),
            self._series("Discarded", "discard", lambda sample: sample.discarded),
        ]
        return charts.bar_chart("ended", "Ended", summary, self._axis, series)

    def _waiting(self) -> charts.Chart:
        values = [period.waiting for period in self._periods]
        most = max((value for value in values if value is not None), default=0)
        summary = f"{words.number(self._waiting_now)} now, {words.number(most)} at most"
        series = [charts.Series(name="At most", kind="waiting", values=values)]
        return charts.line_chart("waiting", "Waiting or running", summary, self._axis, series, area=True)

    def _waits(self) -> charts.Chart:
        half, most = _quantile(self._sum, 0.5), _quantile(self._sum, 0.99)
        summary = "No attempt started"
        if half is not None and most is not None:
            summary = f"Half of the attempts started {_within(half)} of their due time, 99 % {_within(most)}"
        series = [
            self._series("Half within", "half", lambda sample: _quantile(sample, 0.5)),
            self._series("99 % within", "nearly-all", lambda sample: _quantile(sample, 0.99)),
        ]
        return charts.duration_chart("waits", "Time until the start", summary, self._axis, series)

    def _series(self, name: str, kind: str, value: Callable[[Sample], float | None]) -> charts.Series:
        return charts.Series(name=name, kind=kind, values=[value(sample) for sample in self._samples])


def _quantile(sample: Sample, share: float) -> float | None:
    return words.quantile(sample.wait_seconds, share)


def _within(seconds: float) -> str:
    return f"within {words.span(seconds)}" if seconds < math.inf else f"later than {words.span(SECONDS[-1])}"


def _cells(period: Period) -> Sequence[str]:
    row = period.sample or Sample()
    counts = (row.accepted, row.called, row.refused, row.succeeded, row.failed, row.discarded, period.waiting or 0)
    waits = (_quantile(row, 0.5), _quantile(row, 0.99))
    return [*map(words.number, counts), *("" if value is None else words.span(value) for value in waits)]
