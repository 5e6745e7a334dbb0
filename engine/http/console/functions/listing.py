"""Console page of a project's functions, with versions, aliases, and numbers of waiting and running invocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.http.api.paging import page_of
from engine.http.api.routing import Call
from engine.http.console.pages import PageFamily, Pages, get
from engine.http.console.paths import PROJECT
from engine.metrics.usage import Usage
from engine.model import Alias, AsyncSettings, Function
from engine.model.controls import Controls
from engine.resources.triggers import Triggers
from engine.runtimes.catalog import warning_of
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

ROWS = 100


class Load(Struct, frozen=True, kw_only=True):
    waiting: int  #: accepted invocations that do not run
    running: int  #: attempts, synchronous calls included
    instances: int


class FunctionLoad:
    """Load of each function. ``instances`` returns the number of live instances of functions."""

    def __init__(self, backlog: Backlog, scheduler: Scheduler, instances: Callable[[Collection[int]], int]) -> None:
        self._backlog, self._scheduler, self._instances = backlog, scheduler, instances

    def of(self, function_id: int) -> Load:
        running = self._scheduler.running(function_id)
        return Load(
            waiting=max(0, self._backlog.of(function_id)[0] - running),
            running=running,
            instances=self._instances([function_id]),
        )


class FunctionRow(Struct, frozen=True, kw_only=True):
    function: Function  #: version ``latest``
    urn: str
    controls: Controls
    versions: Sequence[str]  #: published versions
    aliases: Sequence[Alias]
    settings: AsyncSettings | None
    load: Load
    triggers: int
    failures: int  #: number of failed attempts in the last day
    warning: str  #: about its runtime; empty: none


class FunctionsPage(PageFamily):
    """Page of a project's functions: all, those whose name contains ``name`` of the query, or ``failing`` ones."""

    def __init__(
        self,
        pages: Pages,
        catalog: Catalog,
        controls: FunctionControls,
        usage: Usage,
        triggers: Triggers,
        load: FunctionLoad,
        region: str,
    ) -> None:
        self._pages, self._catalog, self._controls, self._usage = pages, catalog, controls, usage
        self._triggers, self._load, self._region = triggers, load, region

    @get("ConsoleFunctions", f"{PROJECT}/functions")
    async def show(self, call: Call) -> Reply:
        name = call.text("name").strip()
        failures, failing = self._usage.sums("errors"), bool(call.text("failing"))
        found = self._catalog.list(call.project, name_part=name)
        found = [one for one in found if failures.get(one.function_id)] if failing else found
        page = page_of(call, found, "limit", maximum=ROWS)
        triggers = Counter(trigger.function_id for trigger in self._triggers.in_project(call.project))
        rows = [self._row(one, triggers[one.function_id], failures.get(one.function_id, 0)) for one in page.items]
        shown: dict[str, Any] = {"page": page, "rows": rows, "limit": ROWS, "searched": name, "failing": failing}
        return await self._pages.show(call, "functions.html", **shown)

    def _row(self, function: Function, triggers: int, failures: int) -> FunctionRow:
        function_id = function.function_id
        return FunctionRow(
            function=function,
            urn=function.urn(self._region).function,
            controls=self._controls.of(function_id),
            versions=[version.version for version in self._catalog.versions(function_id)[1:]],
            aliases=self._catalog.aliases(function_id),
            settings=self._catalog.settings_of(function_id, function.version),
            load=self._load.of(function_id),
            triggers=triggers,
            failures=failures,
            warning=warning_of(function.runtime),
        )
