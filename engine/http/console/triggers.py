"""Console page of a project's triggers, with the states and problems of their sources, and times of next restarts."""

from __future__ import annotations

from engine.asgi.wire import Reply
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, own_urn
from engine.http.api.triggers import TriggersApi
from engine.http.console.pages import Pages
from engine.http.console.parts import ConsoleParts
from engine.triggers.supervisor import RUNNING

ROWS = 100


class TriggersPage:
    def __init__(self, parts: ConsoleParts, pages: Pages) -> None:
        self._parts, self._pages, self._triggers = parts, pages, TriggersApi(parts.api)

    async def show(self, call: Call) -> Reply:
        api, name = self._parts.api, call.text("function")
        found = api.resources.triggers.in_project(call.project)
        if name:
            function = api.catalog.find(own_urn(name, call.project, api.region))
            found = [trigger for trigger in found if trigger.function_id == function.function_id]
        page = page_of(call, found, "limit", maximum=ROWS)
        services = self._parts.services()
        return await self._pages.show(
            call,
            "triggers.html",
            function=name,
            page=page,
            limit=ROWS,
            rows=[(trigger, self._triggers.project_trigger(trigger)) for trigger in page.items],
            services={table: one for table, one in services.items() if one.state != RUNNING or one.problem},
        )
