"""Console page of a project's functions, with versions, aliases, and numbers of waiting and running invocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, Handler
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import PROJECT
from engine.metrics.usage import Usage
from engine.model import Alias, AsyncSettings, Function
from engine.resources.triggers import Triggers
from engine.runtimes.catalog import warning_of
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

ROWS = 100


class FunctionRow(Struct, frozen=True, kw_only=True):
    function: Function  #: version ``latest``
    urn: str
    versions: Sequence[str]  #: published versions
    aliases: Sequence[Alias]
    settings: AsyncSettings | None
    unended: int  #: accepted invocations that wait or run
    running: int  #: attempts, synchronous calls included
    instances: int
    triggers: int
    failures: int  #: number of failed attempts in the last day
    warning: str  #: about its runtime; empty: none


class FunctionsPage:
    """Page of all functions of a project. ``instances`` returns the number of live instances of functions."""

    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        usage: Usage,
        triggers: Triggers,
        backlog: Backlog,
        scheduler: Scheduler,
        instances: Callable[[Collection[int]], int],
        region: str,
    ) -> None:
        self._pages, self._catalog, self._usage, self._triggers = pages, catalog, usage, triggers
        self._backlog, self._scheduler, self._instances, self._region = backlog, scheduler, instances, region

    def pages(self) -> Mapping[str, Handler]:
        return {f"{PROJECT}/functions": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {}

    async def show(self, call: Call) -> Reply:
        page = page_of(call, self._catalog.list(call.project), "limit", maximum=ROWS)
        failures = self._usage.failures()
        triggers = Counter(trigger.function_id for trigger in self._triggers.in_project(call.project))
        rows = [self._row(one, triggers[one.function_id], failures.get(one.function_id, 0)) for one in page.items]
        return await self._pages.show(call, "functions.html", page=page, rows=rows, limit=ROWS)

    def _row(self, function: Function, triggers: int, failures: int) -> FunctionRow:
        function_id = function.function_id
        return FunctionRow(
            function=function,
            urn=function.urn(self._region).function,
            versions=[version.version for version in self._catalog.versions(function_id)[1:]],
            aliases=self._catalog.aliases(function_id),
            settings=self._catalog.settings_of(function_id, function.version),
            unended=self._backlog.of(function_id)[0],
            running=self._scheduler.running(function_id),
            instances=self._instances([function_id]),
            triggers=triggers,
            failures=failures,
            warning=warning_of(function.runtime),
        )
