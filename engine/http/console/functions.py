"""Console page of a project's functions, with versions, aliases, and numbers of waiting and running invocations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.http.api.paging import page_of
from engine.http.api.routing import Call
from engine.http.console.pages import Pages
from engine.http.console.parts import ConsoleParts
from engine.model import Alias, AsyncSettings, Function

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


class FunctionsPage:
    def __init__(self, parts: ConsoleParts, pages: Pages) -> None:
        self._parts, self._pages = parts, pages

    async def show(self, call: Call) -> Reply:
        api = self._parts.api
        page = page_of(call, api.catalog.list(call.project), "limit", maximum=ROWS)
        failures = api.usage.failures()
        triggers = Counter(trigger.function_id for trigger in api.resources.triggers.in_project(call.project))
        rows = [self._row(one, triggers[one.function_id], failures.get(one.function_id, 0)) for one in page.items]
        return await self._pages.show(call, "functions.html", page=page, rows=rows, limit=ROWS)

    def _row(self, function: Function, triggers: int, failures: int) -> FunctionRow:
        api, function_id = self._parts.api, function.function_id
        return FunctionRow(
            function=function,
            urn=function.urn(api.region).function,
            versions=[version.version for version in api.catalog.versions(function_id)[1:]],
            aliases=api.catalog.aliases(function_id),
            settings=api.catalog.settings_of(function_id, function.version),
            unended=self._parts.unended(function_id),
            running=self._parts.running(function_id),
            instances=api.instances([function_id]),
            triggers=triggers,
            failures=failures,
        )
