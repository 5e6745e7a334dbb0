"""Charts of the whole engine, from its samples by minute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.http.console import words
from engine.http.console.charts import Chart, ChartText, Series, TimeAxis, bar_chart, duration_chart, line_chart
from engine.http.console.time_ranges import FigureTable, TimeRange
from engine.metrics.histogram import SECONDS
from engine.metrics.samples import Period, Sample, Samples


class EngineCharts:
    """Charts and table of one time range."""

    def __init__(self, samples: Samples, chosen: TimeRange) -> None:
        self._waiting_now = samples.waiting
        self._periods = samples.periods(chosen.minutes, chosen.size)
        self._samples = [one.sample or Sample() for one in self._periods]
        self._axis = TimeAxis(begins=[one.begin for one in self._periods], minutes=chosen.size, labels=chosen.ticks)
        self._sum = Sample()
        for one in self._samples:
            self._sum.add(one)

    def charts(self) -> Sequence[Chart]:
        return [self._accepted(), self._ended(), self._waiting(), self._waits()]

    def table(self) -> FigureTable:
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
        rows = [(one.begin, _cells(one)) for one in reversed(self._periods) if one.sample is not None]
        return FigureTable(minutes=self._axis.minutes, names=names, rows=rows)

    def _accepted(self) -> Chart:
        total = self._sum
        summary = (
            f"{words.number(total.accepted)} asynchronous requests, {words.number(total.called)} synchronous calls;"
            f" {words.number(total.refused)} refused"
        )
        series = [
            self._series("Asynchronous", "accepted", lambda one: one.accepted),
            self._series("Synchronous", "called", lambda one: one.called),
            self._series("Refused", "refused", lambda one: one.refused),
        ]
        return bar_chart(ChartText(id="accepted", title="Accepted", summary=summary), self._axis, series)

    def _ended(self) -> Chart:
        total = self._sum
        summary = (
            f"{words.number(total.succeeded)} asynchronous invocations succeeded, {words.number(total.failed)} failed,"
            f" {words.number(total.discarded)} were discarded"
        )
        series = [
            self._series("Succeeded", "success", lambda one: one.succeeded),
            self._series("Failed", "fail", lambda one: one.failed),
            self._series("Discarded", "discard", lambda one: one.discarded),
        ]
        return bar_chart(ChartText(id="ended", title="Ended", summary=summary), self._axis, series)

    def _waiting(self) -> Chart:
        values = [one.waiting for one in self._periods]
        most = max((value for value in values if value is not None), default=0)
        text = ChartText(
            id="waiting",
            title="Waiting or running",
            summary=f"{words.number(self._waiting_now)} now, {words.number(most)} at most",
        )
        return line_chart(text, self._axis, [Series(name="At most", kind="waiting", values=values)], area=True)

    def _waits(self) -> Chart:
        half, most = _quantile(self._sum, 0.5), _quantile(self._sum, 0.99)
        summary = "No attempt started"
        if half is not None and most is not None:
            summary = f"Half of the attempts started {_within(half)} of their due time, 99 % {_within(most)}"
        text = ChartText(id="waits", title="Time until the start", summary=summary, show=words.span)
        series = [
            self._series("Half within", "half", lambda one: _quantile(one, 0.5)),
            self._series("99 % within", "nearly-all", lambda one: _quantile(one, 0.99)),
        ]
        return duration_chart(text, self._axis, series)

    def _series(self, name: str, kind: str, value: Callable[[Sample], float | None]) -> Series:
        return Series(name=name, kind=kind, values=[value(one) for one in self._samples])


def _quantile(sample: Sample, share: float) -> float | None:
    return words.quantile(sample.wait_seconds, share)


def _within(seconds: float) -> str:
    return f"within {words.span(seconds)}" if seconds < math.inf else f"later than {words.span(SECONDS[-1])}"


def _cells(period: Period) -> Sequence[str]:
    one = period.sample or Sample()
    counts = (one.accepted, one.called, one.refused, one.succeeded, one.failed, one.discarded, period.waiting or 0)
    waits = (_quantile(one, 0.5), _quantile(one, 0.99))
    return [*map(words.number, counts), *("" if value is None else words.span(value) for value in waits)]
