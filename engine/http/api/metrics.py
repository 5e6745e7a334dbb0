"""Time series about functions (FunctionGraph API: ListFunctionStatistics and others). The value -1 means "no data".

Concurrency is the average number of running attempts in a time interval, rounded up: seconds of all attempts divided by
seconds of the interval. The number of instances is measured only for the last interval. In earlier intervals, the
concurrency stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import BadMetricQuery, BadQuery
from engine.functions.catalog import Catalog
from engine.http.api.paging import MAX_LIMIT, PAGE, bounds
from engine.http.api.routing import BASE, FUNCTION, FUNCTIONS, ApiFamily, Call, read, whole_number
from engine.metrics.samples import Stretch, Tally
from engine.metrics.usage import Usage
from engine.model.clock import Clock
from engine.resources.reservations import Reservations

DAY = 86_400.0
MAX_PERIOD = 1_440  #: minutes
NO_DATA = -1.0
MONTHS = {"0": (0, 0), "1": (1, 1), "2": (1, 3), "3": (1, 6)}  #: option -> months ago: nearest, farthest
WORKFLOW_METRICS = ("totalCount", "errorCount", "averageDuration", "running", "rejectCount")


class SlaValue(Struct, frozen=True, kw_only=True):
    timestamp: int  #: milliseconds
    value: float


class FunctionSeries(Struct, frozen=True, kw_only=True):
    count: list[SlaValue]
    fail_count: list[SlaValue]
    function_error_count: list[SlaValue]
    system_error_count: list[SlaValue]
    reject_count: list[SlaValue]
    duration: list[SlaValue]
    max_duration: list[SlaValue]
    min_duration: list[SlaValue]
    concurrency_num: list[SlaValue]
    instance_num: list[SlaValue]
    reserved_instance_num: list[SlaValue]


class ReservedSeries(Struct, frozen=True, kw_only=True, rename="camel"):
    instance_num: list[SlaValue]
    reserved_instance_num: list[SlaValue]


class MonthUsed(Struct, frozen=True, kw_only=True):
    date: str
    value: float


class Statistics(Struct, frozen=True, kw_only=True):
    """Either the monthly usage or the time series of a project, as the query parameter ``filter`` selects."""

    count: list[MonthUsed] | UnsetType = UNSET
    gbs: list[MonthUsed] | UnsetType = UNSET
    gpu_gbs: list[MonthUsed] | UnsetType = UNSET
    statistics: FunctionSeries | UnsetType = UNSET
    monitor_data: FunctionSeries | UnsetType = UNSET  #: the same; Open Telekom Cloud's Python client reads this


class FunctionMetric(Struct, frozen=True, kw_only=True):
    key: str
    value: int


class FunctionMetrics(Struct, frozen=True, kw_only=True):
    values: list[FunctionMetric]
    count: int
    next_marker: int


class WorkflowSeries(Struct, frozen=True, kw_only=True):
    count: list[SlaValue]
    duration: list[SlaValue]
    fail_count: list[SlaValue]
    running_count: list[SlaValue]


#: Measures that functions are ranked by; durations in milliseconds.
_RANKS: dict[str, Callable[[Tally], float]] = {
    "failcount": lambda tally: tally.errors,
    "count": lambda tally: tally.count,
    "rejectcount": lambda tally: tally.rejects,
    "expiredcount": lambda tally: tally.expired,  # ours
    "duration": lambda tally: tally.seconds / tally.count * 1000 if tally.count else 0,
    "maxduration": lambda tally: tally.longest * 1000,
}


class MetricsApi(ApiFamily):
    """Statistics of functions and projects. ``instances`` returns the number of live instances of functions."""

    def __init__(
        self,
        catalog: Catalog,
        usage: Usage,
        reservations: Reservations,
        instances: Callable[[Collection[int]], int],
        clock: Clock,
        region: str,
    ) -> None:
        self._catalog, self._usage, self._reservations = catalog, usage, reservations
        self._instances, self._clock, self._region = instances, clock, region

    @read("ListFunctionStatistics", f"{FUNCTION}/statistics/{{period}}", FunctionSeries)
    @read("ShowFunctionMetrics", f"{FUNCTION}/slareports/{{period}}", FunctionSeries)
    async def show_function(self, call: Call) -> FunctionSeries:
        return self._series([self._catalog.find(call.urn).function_id], *_span(call.part("period"), self._clock.now()))

    @read("ShowFuncReservedInstanceMetrics", f"{FUNCTION}/instancereports", ReservedSeries, query=PAGE)
    async def show_instances(self, call: Call) -> ReservedSeries:
        series = self._series([self._catalog.find(call.urn).function_id], 60, self._clock.now())
        offset, limit = bounds(call, "limit", maximum=MAX_LIMIT, default=100)
        page = slice(offset, offset + limit)
        reserved = series.reserved_instance_num[page]
        return ReservedSeries(instance_num=series.instance_num[page], reserved_instance_num=reserved)

    @read("ListStatistics", f"{FUNCTIONS}/statistics", Statistics, query=(*PAGE, "filter", "period", "option"))
    async def show_project(self, call: Call) -> Statistics:
        wanted, project = call.text("filter"), call.project
        if wanted == "monitor_data":
            ids = [function.function_id for function in self._catalog.list(project)]
            series = self._series(ids, *_span(call.text("period") or "60", self._clock.now()))
            return Statistics(statistics=series, monitor_data=series)
        if wanted != "monthly_report":
            raise BadQuery("filter", wanted, "must be monitor_data or monthly_report")
        return self._months(project, call.text("option") or "0")

    @read(
        "ListFunctionAsMetric",
        f"{BASE}/function/report",
        FunctionMetrics,
        query=("type", "limit", "start_time", "end_time"),
    )
    async def compare(self, call: Call) -> FunctionMetrics:
        """List the functions with the highest values of a measure, such as the number of failures.

        The query selects the measure (``type``) and the time span, by default the last day.
        """
        kind, limit = call.text("type") or "failcount", min(call.number("limit", 0) or 10, MAX_LIMIT)
        rank = _RANKS.get(kind.lower())
        if rank is None:
            raise BadQuery("type", kind, f"must be one of {', '.join(_RANKS)}")
        now = self._clock.now()
        end = _moment(call, "end_time", now)
        begin = _moment(call, "start_time", end - DAY)
        totals = self._usage.totals(begin, end)
        values = [
            FunctionMetric(key=function.urn(self._region).function, value=round(value))
            for function in self._catalog.list(call.project)
            if (tally := totals.get(function.function_id)) and (value := rank(tally))
        ]
        page = sorted(values, key=lambda metric: -metric.value)[:limit]
        return FunctionMetrics(values=page, count=len(page), next_marker=len(page))

    @read(
        "ShowTenantMetric",
        f"{BASE}/workflow-statistic",
        WorkflowSeries,
        query=("period", "metric_type", "start_time", "end_time"),
        lacks="workflows",
    )
    async def show_workflows(self, call: Call) -> WorkflowSeries:
        """Return empty series, as the vendor's platform does for an account without workflows."""
        if (kind := call.text("metric_type")) not in ("", *WORKFLOW_METRICS):
            raise BadMetricQuery("metric_type", kind, f"must be one of {', '.join(WORKFLOW_METRICS)}")
        for name in ("period", "start_time", "end_time"):
            whole_number(name, call.text(name), 0, BadMetricQuery)
        return WorkflowSeries(count=[], duration=[], fail_count=[], running_count=[])

    @read(
        "ShowWorkFlowMetric",
        f"{BASE}/workflow-statistic/{{workflow_urn}}",
        WorkflowSeries,
        query=("period", "start_time", "end_time"),
        lacks="workflows",
    )
    async def show_workflow(self, call: Call) -> Reply:
        raise BadMetricQuery("workflow_urn", call.part("workflow_urn"), "must be a workflow, and this engine has none")

    def _series(self, functions: Sequence[int], minutes: int, end: float) -> FunctionSeries:
        stretches = self._usage.stretches(functions, end - (minutes - 1) * 60, end)
        reserved = sum(self._reservations.count(function_id) for function_id in functions)
        return _series(stretches, reserved, max(0, self._instances(functions) - reserved))

    def _months(self, project: str, option: str) -> Statistics:
        if option not in MONTHS:
            raise BadQuery("option", option, f"must be one of {', '.join(MONTHS)}")
        nearest, farthest = MONTHS[option]
        dates = _dates(self._clock.now(), nearest, farthest)
        months = [month for month in self._usage.months(project) if month.date in dates]
        return Statistics(
            count=[MonthUsed(date=month.date, value=month.count) for month in months],
            gbs=[MonthUsed(date=month.date, value=month.gb_seconds) for month in months],
            gpu_gbs=[MonthUsed(date=month.date, value=0) for month in months],
        )


def _series(stretches: Sequence[Stretch], reserved: int, elastic: int) -> FunctionSeries:
    def values(value: Callable[[Tally], float]) -> list[SlaValue]:
        return [
            SlaValue(
                timestamp=int(stretch.begin * 1000), value=NO_DATA if stretch.tally is None else value(stretch.tally)
            )
            for stretch in stretches
        ]

    minutes = stretches[0].minutes
    busy = values(lambda tally: math.ceil(tally.seconds / (60 * minutes)))
    held = values(lambda tally: reserved)
    return FunctionSeries(
        count=values(lambda tally: tally.count),
        fail_count=values(lambda tally: tally.errors),
        function_error_count=values(lambda tally: tally.function_errors),
        system_error_count=values(lambda tally: tally.system_errors),
        reject_count=values(lambda tally: tally.rejects),
        duration=values(lambda tally: tally.seconds / tally.count * 1000 if tally.count else NO_DATA),
        max_duration=values(lambda tally: tally.longest * 1000 if tally.count else NO_DATA),
        min_duration=values(lambda tally: tally.shortest * 1000 if tally.count else NO_DATA),
        concurrency_num=busy,
        instance_num=[*busy[:-1], replace(busy[-1], value=max(busy[-1].value, elastic))],
        reserved_instance_num=[*held[:-1], replace(held[-1], value=reserved)],
    )


def _span(text: str, now: float) -> tuple[int, float]:
    """Return the minutes and the end of a period.

    ``text`` is a number of minutes until now, or as Open Telekom Cloud's clients send it, the date of the beginning, or
    the times of both ends. Raises BadQuery if it is none of them.
    """
    if "," not in text and "T" not in text:
        minutes, end = whole_number("period", text, 0, BadQuery), now
    else:
        begin, end = sorted(map(_time, text.split(",", 1))) if "," in text else (_time(text), now)
        end = min(max(end, 0.0), now)
        minutes = math.ceil((end - begin) / 60)
    if minutes < 1:
        raise BadQuery("period", text, "must be a number of minutes, 1 or more, or a date before now")
    return min(minutes, MAX_PERIOD), end


def _time(text: str) -> float:
    """Return the time that seconds since the epoch or a date such as ``2026-01-31T23:59:59Z`` name."""
    try:
        if "T" not in text:
            return float(int(text.partition(".")[0]))
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery("period", text, "must be a number of minutes, a date, or two times in seconds") from None


def _moment(call: Call, name: str, default: float) -> float:
    """Return the time in the query parameter ``name``, in seconds since the epoch; ``default`` if it is absent or 0.

    Clients may send seconds or milliseconds. Raises BadQuery if the value is not a whole number.
    """
    number = call.number(name, 0)
    return default if not number else number / 1000 if number > 10**11 else float(number)


def _dates(now: float, nearest: int, farthest: int) -> Collection[str]:
    """Return the months from ``farthest`` to ``nearest`` months before ``now``, both included, as YYYY-MM."""
    today = datetime.fromtimestamp(now, UTC)
    months = today.year * 12 + today.month - 1
    return {f"{number // 12}-{number % 12 + 1:02}" for number in range(months - farthest, months - nearest + 1)}
