"""Lists of invocations, of a project and of one function, page by page.

A page reads rows for a limited time. If rows that match are rare, it says how far it has come, and a link goes on
from there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import InvalidField, NotFound
from engine.functions.catalog import Catalog
from engine.http.api.paging import read_place, show_place
from engine.http.api.routing import Call
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.invocations.filters import SPANS, Filters, InvocationFilter, InvocationTriggers, filter_of
from engine.http.console.pages import PageFamily, Pages, get
from engine.http.console.paths import FUNCTION, MANY, PROJECT, name_of, path_of
from engine.model import Function, State
from engine.model.identity import accepted_at
from engine.protocols import NEWEST, Count, Found, Place, Records

ROWS = 50
COUNTED = 10_000  #: records that are counted
_NOTHING = Found(records=(), read=0)


class InvocationLists(PageFamily):
    """Pages of the lists. ``sources`` are the names of sources among which a reader can choose."""

    def __init__(
        self,
        pages: Pages,
        frame: FunctionFrame,
        catalog: Catalog,
        records: Records,
        filters: Filters,
        sources: Collection[str],
        triggers: InvocationTriggers,
    ) -> None:
        self._pages, self._frame, self._catalog, self._records = pages, frame, catalog, records
        self._filters, self._sources, self._triggers = filters, sources, triggers

    @get("ConsoleInvocations", f"{PROJECT}/invocations")
    async def show_project(self, call: Call) -> Reply:
        functions = {function.function_id: function for function in self._catalog.list(call.project)}
        chosen = filter_of(call.text)
        data = await self._data(call, chosen, functions)
        return await self._pages.show(call, "invocations.html", tab="", filter=chosen, **data)

    @get("ConsoleFunctionInvocations", f"{FUNCTION}/invocations")
    async def show_function(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        name = name_of(function)
        typed = replace(filter_of(call.text), function="")
        data = await self._data(call, typed, {function.function_id: function}, name)
        return await self._frame.show(call, "functions/invocations.html", tab="invocations", filter=typed, **data)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _data(
        self, call: Call, typed: InvocationFilter, functions: Mapping[int, Function], name: str = ""
    ) -> dict[str, Any]:
        """Return the data of a page, with ``live`` and ``http_status``. ``name`` is the function of the path."""
        page, count = _NOTHING, Count(rows=0)
        errors, status = dict[str, str](), 200
        function_id = next(iter(functions)) if name else 0
        chosen = replace(typed, function=name) if name else typed
        back, start = _start(call)
        rows = min(call.number("limit", 0) or ROWS, ROWS)
        try:
            selection = self._filters.selection(chosen, call.project, frozenset(functions))
            function_id = selection.function_id
            if functions:
                page = await self._records.search(selection, start, rows, back=back)
                count = await self._records.count(selection, COUNTED)
        except (InvalidField, NotFound) as error:
            errors, status = _refusal(error)
        unfinished = page.more and len(page.records) < rows
        return {
            "live": not errors and start is None and not unfinished,
            "http_status": status,
            "functions": functions,
            "errors": errors,
            "found": page,
            "count": count,
            "most": COUNTED,
            "states": list(State),
            "spans": [(key, text) for key, (text, _) in SPANS.items()],
            "sources": [(source, source) for source in sorted({*self._sources, *filter(None, [typed.source])})],
            "triggers": self._triggers.options(call.project, function_id, typed.trigger),
            "many": {} if errors else self._many(call, chosen),
            "unfinished": unfinished,
            "back": back,
            "read": call.number("read", 0) + page.read,
            "matching": call.number("found", 0) + len(page.records),
            "reached": _time_of(page.first if back else page.last),
            **_links(call, typed, page, start, back, unfinished),
        }

    def _many(self, call: Call, chosen: InvocationFilter) -> Mapping[str, str]:
        """Return the paths of the pages that act on all invocations of the filter's function, or of the project."""
        if not chosen.function:
            return {kind: path.format(project_id=call.project) for kind, path in MANY.items()}
        function = self._catalog.find(self._filters.urn(chosen, call.project))
        return {kind: path_of(function, f"/invocations/{kind}") for kind in MANY}


def _refusal(error: InvalidField | NotFound) -> tuple[dict[str, str], int]:
    """Return the message of an invalid filter by its field, and the status. An error of the states is raised again."""
    if isinstance(error, NotFound):
        return {"function": str(error)}, 404
    if error.field == "status":
        raise error
    return {"function" if error.field == "function_urn" else error.field: error.allowed}, 400


def _start(call: Call) -> tuple[bool, Place | None]:
    """Return whether the page is read backwards, and the place in the query from which it is read."""
    before, after = call.text("before"), call.text("after")
    return bool(before), read_place(before or after, "before" if before else "after") if before or after else None


def _links(
    call: Call, typed: InvocationFilter, page: Found, start: Place | None, back: bool, unfinished: bool
) -> dict[str, str]:
    """Return the queries of the links to other pages; empty where there is none."""
    limit = {"limit": call.text("limit")}
    before: dict[str, object] = {**limit, "before": show_place(page.first or start)}
    after: dict[str, object] = {**limit, "after": show_place(page.last or start)}
    if unfinished:
        seen = {"read": call.number("read", 0) + page.read, "found": call.number("found", 0) + len(page.records)}
        (before if back else after).update(seen)
    has_newer, has_older = (page.more, True) if back else (start is not None, page.more)
    return {
        "newest": typed.query(**limit) if start is not None else "",
        "newer": typed.query(**before) if has_newer else "",
        "older": typed.query(**after) if has_older else "",
    }


def _time_of(place: Place | None) -> float | None:
    """Return the time of acceptance at a place; None in a part of the list that is sorted by another."""
    if place is None or place[0] != NEWEST:
        return None
    return accepted_at(place[2])
