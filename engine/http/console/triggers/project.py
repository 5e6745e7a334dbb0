"""Console page of a project's triggers, with the states and problems of their sources and of plugins' services."""

from __future__ import annotations

from collections.abc import Mapping

from engine.asgi.wire import Reply
from engine.errors import FunctiondError, InvalidField
from engine.functions.catalog import Catalog
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, own_urn
from engine.http.console.forms import Form
from engine.http.console.pages import PageFamily, Pages, see_other, serves
from engine.http.console.paths import name_of, path_of
from engine.http.console.triggers.rows import TriggerRows
from engine.http.console.visibility import service_shown
from engine.resources.triggers import Triggers
from engine.triggers.sources import Sources
from engine.triggers.supervisor import RUNNING

ROWS = 100
OFFERED = 200  #: functions that the page of a new trigger suggests


class TriggersPage(PageFamily):
    def __init__(
        self, pages: Pages, catalog: Catalog, triggers: Triggers, sources: Sources, rows: TriggerRows, region: str
    ) -> None:
        self._pages, self._catalog, self._triggers, self._sources = pages, catalog, triggers, sources
        self._rows, self._region = rows, region

    @serves("ConsoleTriggers")
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
            rows=[self._rows.row(call, trigger) for trigger in page.items],
            services={
                table: service_shown(call, one)
                for table, one in services.items()
                if one.state != RUNNING or one.problem
            },
        )

    @serves("ConsoleNewTriggerFunction")
    async def show_new(self, call: Call) -> Reply:
        """Show the page that asks for the function of a new trigger."""
        return await self._show_new(call, call.text("function"), {})

    @serves("ConsoleChooseTriggerFunction")
    async def choose(self, call: Call, form: Form) -> Reply:
        name = form.text("function")
        try:
            function = self._catalog.find(own_urn(name, call.project, self._region))
        except FunctiondError as error:
            problem = error.allowed if isinstance(error, InvalidField) else str(error)
            problem = problem if name else "Enter the name of a function."
            return await self._show_new(call, name, {"function": problem})
        return see_other(path_of(function, "/configuration/triggers/new"))

    async def _show_new(self, call: Call, name: str, errors: Mapping[str, str]) -> Reply:
        functions = self._catalog.list(call.project)[:OFFERED]
        return await self._pages.show(
            call,
            "triggers/function.html",
            function=name,
            functions=[name_of(one) for one in functions],
            errors=errors,
        )
