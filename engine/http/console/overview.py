"""Overview, the first page of the console. Shows the data of the resources /readyz and /metrics."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.http.api.routing import Call
from engine.http.console.pages import Pages
from engine.http.console.parts import ConsoleParts
from engine.metrics.prometheus import Figure


class OverviewPage:
    def __init__(self, parts: ConsoleParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages

    async def show(self, call: Call) -> Reply:
        health, figures = self._parts.api.health, {figure.name: figure for figure in self._parts.figures()}
        return await self._pages.show(
            call,
            "overview.html",
            reasons=health.ready(),
            about=health.about(),
            value={name: figure.values[""] for name, figure in figures.items() if "" in figure.values},
            values={name: _nonzero(figure) for name, figure in figures.items() if figure.label},
            times={name: figure.distribution for name, figure in figures.items() if figure.distribution},
        )


def _nonzero(figure: Figure) -> Mapping[str, float]:
    """Return the nonzero values of a metric by the value of its label, the largest first."""
    found = {label: value for label, value in figure.values.items() if value}
    return dict(sorted(found.items(), key=lambda one: -one[1]))
