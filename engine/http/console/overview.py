"""Overview, the first page of the console. Shows the data of the resources /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from engine.asgi.wire import Reply
from engine.http.api.health import HealthChecks
from engine.http.api.routing import Call, Handler
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import HOME
from engine.metrics.prometheus import Figure


class OverviewPage:
    """Page of the engine's state. ``figures`` returns the metrics that /metrics shows."""

    def __init__(self, pages: Pages, health: HealthChecks, figures: Callable[[], Iterable[Figure]]) -> None:
        self._pages, self._health, self._figures = pages, health, figures

    def pages(self) -> Mapping[str, Handler]:
        return {HOME: self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show(self, call: Call) -> Reply:
        figures = {figure.name: figure for figure in self._figures()}
        return await self._pages.show(
            call,
            "overview.html",
            reasons={**self._health.degraded(), **self._health.ready()},
            about=self._health.about(),
            value={name: figure.values[""] for name, figure in figures.items() if "" in figure.values},
            values={name: _nonzero(figure) for name, figure in figures.items() if figure.label},
            times={name: figure.distribution for name, figure in figures.items() if figure.distribution},
        )


def _nonzero(figure: Figure) -> Mapping[str, float]:
    """Return the nonzero values of a metric by the value of its label, the largest first."""
    found = {label: value for label, value in figure.values.items() if value}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
