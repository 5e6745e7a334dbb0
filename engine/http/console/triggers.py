"""Console page of a project's triggers, with the states and problems of their sources, and times of next restarts."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, Handler, own_urn
from engine.http.api.triggers import TriggersApi
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import PROJECT
from engine.http.console.visibility import service_shown, trigger_shown
from engine.resources.triggers import Triggers
from engine.triggers.sources import Sources
from engine.triggers.supervisor import RUNNING

ROWS = 100


class TriggersPage:
    def __init__(
        self, pages: Pages, catalog: Catalog, triggers: Triggers, sources: Sources, api: TriggersApi, region: str
    ) -> None:
        self._pages, self._catalog, self._triggers, self._sources = pages, catalog, triggers, sources
        self._api, self._region = api, region

    def pages(self) -> Mapping[str, Handler]:
        return {f"{PROJECT}/triggers": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show(self, call: Call) -> Reply:
        name = call.text("function")
        found = self._triggers.in_project(call.project)
        if name:
            function = self._catalog.find(own_urn(name, call.project, self._region))
            found = [trigger for trigger in found if trigger.function_id == function.function_id]
        page = page_of(call, found, "limit", maximum=ROWS)
        services = self._sources.statistics().services
        return await self._pages.show(
            call,
            "triggers.html",
            function=name,
            page=page,
            limit=ROWS,
            rows=[(trigger, trigger_shown(call, self._api.project_trigger(trigger))) for trigger in page.items],
            services={
                table: service_shown(call, one)
                for table, one in services.items()
                if one.state != RUNNING or one.problem
            },
        )
