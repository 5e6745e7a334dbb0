"""Overview, the first page of the console: what needs attention, the state of the engine now, and charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.http.api.health import HealthChecks
from engine.http.api.routing import BASE, Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.engine_charts import EngineCharts
from engine.http.console.engine_concerns import ACCEPT_CLOCK, engine_concerns
from engine.http.console.forms import Form
from engine.http.console.notes import see_other
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import HOME
from engine.http.console.project_concerns import ProjectConcerns
from engine.http.console.projects import projects_for
from engine.http.console.time_ranges import DAY, HOUR, QUARTER, range_of
from engine.metrics.prometheus import Figure
from engine.metrics.samples import Samples

RANGES = (QUARTER, HOUR, DAY)
PROJECTS = 10  #: projects whose concerns are shown
SHOWN = 12  #: concerns that are shown at once; the others are folded


class OverviewPage:
    """Page of the engine's state. ``figures`` returns the metrics that /metrics shows."""

    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        health: HealthChecks,
        figures: Callable[[], Iterable[Figure]],
        samples: Samples,
        concerns: ProjectConcerns,
        api: ApiRequests,
    ) -> None:
        self._pages, self._catalog, self._health, self._figures = pages, catalog, health, figures
        self._samples, self._concerns, self._api = samples, concerns, api

    def pages(self) -> Mapping[str, Handler]:
        return {HOME: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {ACCEPT_CLOCK: self.accept_clock}

    async def accept_clock(self, call: Call, form: Form) -> Reply:
        project = projects_for(call, self._catalog)[0]
        await self._api.send(call, "POST", f"{BASE.format(project_id=project)}/clock/accept")
        return see_other(HOME, "The clock is accepted.")

    async def show(self, call: Call) -> Reply:
        chosen = range_of(call, RANGES)
        figures = {figure.name: figure for figure in self._figures()}
        value = {name: figure.values[""] for name, figure in figures.items() if "" in figure.values}
        values = {name: _nonzero(figure) for name, figure in figures.items() if figure.label}
        concerns = list(engine_concerns(self._health, value, values["held"]))
        for project in projects_for(call, self._catalog)[:PROJECTS]:
            concerns += await self._concerns.of(call, project)
        charts = EngineCharts(self._samples, chosen)
        return await self._pages.show(
            call,
            "overview.html",
            ready=not self._health.ready(),
            concerns=sorted(concerns, key=lambda one: not one.urgent),
            shown=SHOWN,
            about=self._health.about(""),
            value=value,
            values=values,
            times={name: figure.distribution for name, figure in figures.items() if figure.distribution},
            ranges=RANGES,
            chosen=chosen,
            charts=charts.charts(),
            table=charts.table(),
        )


def _nonzero(figure: Figure) -> Mapping[str, float]:
    """Return the nonzero values of a metric by the value of its label, the largest first."""
    found = {label: value for label, value in figure.values.items() if value}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
