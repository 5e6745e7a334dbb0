"""Actions on many invocations, of a function or of a project: cancel those that have not ended, redrive failed ones.

First a page has their number and some of them. Its form makes the first step, and the reply has a form for the next
one: a script sends it, or a button. All progress is in the forms, so that steps go on after a restart of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from engine.asgi.error_replies import status_of
from engine.asgi.wire import Reply
from engine.errors import AccessDenied, InvalidRequest
from engine.http.api.records import ACTIVE
from engine.http.api.routing import Call, Handler, whole_number
from engine.http.console.forms import Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_links import name_of
from engine.http.console.invocations.bulk_steps import (
    LONGEST_REFUSAL,
    REFUSALS,
    BulkSteps,
    Kind,
    Progress,
    states_of,
)
from engine.http.console.invocations.filters import ANY, Filters, InvocationFilter, filter_of
from engine.http.console.pages import Action, Pages, may
from engine.http.console.paths import FUNCTION, MANY, PROJECT
from engine.model import Record, State
from engine.protocols import Count, Records

SAMPLE = 10  #: invocations that the first page shows
COUNTED = 10_000
_OPERATIONS = {"cancel": "CancelAsyncInvocations", "redrive": "RedriveAsyncInvocations"}
_PATHS: Mapping[str, Kind] = {
    MANY["cancel"]: "cancel",
    MANY["redrive"]: "redrive",
    f"{FUNCTION}/invocations/cancel": "cancel",
    f"{FUNCTION}/invocations/redrive": "redrive",
}


class ManyInvocations:
    def __init__(
        self, pages: Pages, frame: FunctionFrame, records: Records, filters: Filters, steps: BulkSteps
    ) -> None:
        self._pages, self._frame, self._records = pages, frame, records
        self._filters, self._steps = filters, steps

    def pages(self) -> Mapping[str, Handler]:
        return {path: partial(self._preview, kind=kind) for path, kind in _PATHS.items()}

    def actions(self) -> Mapping[str, Action]:
        return {path: partial(self._step, kind=kind) for path, kind in _PATHS.items()}

    # --- inside ---------------------------------------------------------------------------------------------

    async def _preview(self, call: Call, kind: Kind) -> Reply:
        """Show how many invocations match, and some of them."""
        listed = self._checked(call, kind, filter_of(call.text))
        chosen = self._filters.settled(listed)
        counts = dict[str, Count]()
        sample: Sequence[Record] = ()
        for state in (one for one in State if one in states_of(kind, chosen.status)):
            selection = self._steps.selection(call, kind, replace(chosen, status=state.value))
            if not selection.functions and not chosen.function:
                break  # a project without functions
            counts[state.value] = await self._records.count(selection, COUNTED)
            if len(sample) < SAMPLE:
                sample = [*sample, *(await self._records.search(selection, None, SAMPLE - len(sample))).records]
        return await self._show(
            call,
            kind,
            "invocations/many.html",
            chosen,
            counts=counts,
            sample=sample,
            names=self._steps.names(call.project),
            listed=listed,
            most=COUNTED,
        )

    async def _step(self, call: Call, form: Form, kind: Kind) -> Reply:
        chosen = self._checked(call, kind, filter_of(form.text))
        if "running" in form:
            chosen = replace(chosen, status=",".join(sorted(ACTIVE)))
        step = await self._steps.step(call, kind, chosen, _read(form))
        return await self._show(
            call,
            kind,
            "invocations/steps.html",
            chosen,
            progress=step.progress,
            problem=str(step.error or ""),
            stopped_at=step.function,
            http_status=status_of(type(step.error)) if step.error else 200,
        )

    async def _show(self, call: Call, kind: Kind, content: str, chosen: InvocationFilter, **data: Any) -> Reply:
        """Show ``content``, a template, as a page of the function or of the project that the path names."""
        data |= {"content": content, "kind": kind, "filter": chosen, "live": False}
        data["title"] = "Cancel invocations" if kind == "cancel" else "Run failed invocations again"
        if "function" not in call.parts:
            data["list_path"] = f"{PROJECT}/invocations".format(project_id=call.project)
            data["act_path"] = MANY[kind].format(project_id=call.project)
            return await self._pages.show(call, "invocations/many_page.html", **data)
        data["list_path"] = self._frame.page_path(self._frame.function_of(call), "/invocations")
        data["act_path"] = f"{data['list_path']}/{kind}"
        return await self._frame.show(call, "functions/many.html", tab="invocations", **data)

    def _checked(self, call: Call, kind: Kind, chosen: InvocationFilter) -> InvocationFilter:
        """Return a filter for the function of the path. Raises InvalidRequest if the API cannot filter so."""
        if not may(call, _OPERATIONS[kind]):
            raise AccessDenied(f"your role may not use {_OPERATIONS[kind]}")
        if chosen.text or chosen.request or chosen.code == ANY:
            raise InvalidRequest("many invocations cannot be chosen by text, request id or any error; remove it")
        if "function" not in call.parts:
            return chosen
        function = self._frame.function_of(call)
        if chosen.function and self._filters.urn(chosen, call.project).function == self._frame.urn_of(function):
            return chosen
        return replace(chosen, function=name_of(function))


def _read(form: Form) -> Progress:
    """Return the progress in a form. The button ``leave`` leaves out the function at which an error occurred."""
    return Progress(
        function=form.text("leave") or form.text("at"),
        marker="" if "leave" in form else form.text("marker"),
        done=whole_number("done", form.text("done"), 0),
        refused=whole_number("refused", form.text("refused"), 0),
        refusals=tuple(text[:LONGEST_REFUSAL] for text in form.all("refusal")[:REFUSALS]),
        total=whole_number("total", form.text("total"), 0),
        more="more" in form,
    )
