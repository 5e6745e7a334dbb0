"""Actions on many invocations of a function: cancel those that have not ended, redrive those that failed.

First a page has their number and some of them. Its form makes the first step, and the reply has a form for the next
one: a script sends it, or a button. All progress is in the forms, so that steps go on after a restart of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

from msgspec import UNSET, Struct
from msgspec.structs import replace

from engine.asgi.error_replies import status_of
from engine.asgi.wire import Reply
from engine.errors import AccessDenied, FunctiondError, InvalidRequest
from engine.http.api.bulk_cancel import CancelledInvocations
from engine.http.api.records import ACTIVE, read_states
from engine.http.api.redrive import RedrivenInvocations
from engine.http.api.routing import BASE, Call, Handler, whole_number
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_links import name_of
from engine.http.console.invocations.filters import Filters, InvocationFilter, filter_of
from engine.http.console.pages import Action, may
from engine.http.console.paths import FUNCTION
from engine.model import Code, Record, State
from engine.pipeline.redrive import FAILED
from engine.protocols import Count, Records, Selection

SAMPLE = 10  #: invocations that the first page shows
COUNTED = 10_000
STEPS = {"cancel": 500, "redrive": 100}  #: invocations of a step
REFUSALS = 20  #: refused invocations that the last page names
Kind = Literal["cancel", "redrive"]
_OPERATIONS = {"cancel": "CancelAsyncInvocations", "redrive": "RedriveAsyncInvocations"}


class Progress(Struct, frozen=True, kw_only=True):
    """Progress after some steps, as hidden fields of a form have it."""

    marker: str = ""
    done: int = 0
    refused: int = 0
    refusals: tuple[str, ...] = ()  #: request id and reason of the first refused ones
    total: int = 0  #: number of invocations before the first step
    more: bool = False  #: the number is larger
    steps: int = 0


class ManyInvocations:
    def __init__(self, frame: FunctionFrame, records: Records, filters: Filters, api: ApiRequests) -> None:
        self._frame, self._records, self._filters, self._api = frame, records, filters, api

    def pages(self) -> Mapping[str, Handler]:
        return {
            f"{FUNCTION}/invocations/cancel": lambda call: self._preview(call, "cancel"),
            f"{FUNCTION}/invocations/redrive": lambda call: self._preview(call, "redrive"),
        }

    def actions(self) -> Mapping[str, Action]:
        return {
            f"{FUNCTION}/invocations/cancel": lambda call, form: self._step(call, form, "cancel"),
            f"{FUNCTION}/invocations/redrive": lambda call, form: self._step(call, form, "redrive"),
        }

    # --- inside ---------------------------------------------------------------------------------------------

    async def _preview(self, call: Call, kind: Kind) -> Reply:
        """Show how many invocations match, and some of them."""
        if not may(call, _OPERATIONS[kind]):
            raise AccessDenied(f"your role may not use {_OPERATIONS[kind]}")
        listed = self._checked(call, filter_of(call.text))
        chosen = self._filters.settled(listed)
        counts = dict[str, Count]()
        sample: Sequence[Record] = ()
        for state in (one for one in State if one in _states(kind, chosen.status)):
            selection = self._selection(call, kind, replace(chosen, status=state.value))
            counts[state.value] = await self._records.count(selection, COUNTED)
            if len(sample) < SAMPLE:
                sample = [*sample, *(await self._records.search(selection, None, SAMPLE - len(sample))).records]
        return await self._show(
            call, kind, "functions/many.html", chosen, counts=counts, sample=sample, listed=listed, most=COUNTED
        )

    async def _step(self, call: Call, form: Form, kind: Kind) -> Reply:
        chosen = self._checked(call, filter_of(form.text))
        if "running" in form:
            chosen = replace(chosen, status=",".join(sorted(ACTIVE)))
        progress = _read(form)
        try:
            progress = await (self._cancel if kind == "cancel" else self._redrive)(call, chosen, progress)
        except AccessDenied:
            raise
        except FunctiondError as error:
            return await self._show(
                call,
                kind,
                "functions/steps.html",
                chosen,
                progress=progress,
                problem=str(error),
                http_status=status_of(type(error)),
            )
        return await self._show(call, kind, "functions/steps.html", chosen, progress=progress, problem="")

    async def _cancel(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Progress:
        body = {"status": chosen.status, "limit": STEPS["cancel"], "marker": progress.marker}
        target = self._operation(call, chosen, "cancel")
        reply = await self._api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
        step = reply.read(CancelledInvocations)
        return replace(
            progress, marker=step.next_marker, done=progress.done + len(step.cancelled), steps=progress.steps + 1
        )

    async def _redrive(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Progress:
        status = ",".join(sorted(_states("redrive", chosen.status)))
        body = {
            "failed": True,
            "status": status,
            "limit": STEPS["redrive"],
            "marker": progress.marker,
            "counted": False,
        }
        target = self._operation(call, chosen, "redrive")
        reply = await self._api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
        step = reply.read(RedrivenInvocations)
        refused = [] if step.refused is UNSET else step.refused
        texts = (f"{one.request_id} {one.error_message}"[:LONGEST_REFUSAL] for one in refused)
        return replace(
            progress,
            marker="" if step.next_marker is UNSET else step.next_marker,
            done=progress.done + len(step.redriven),
            refused=progress.refused + len(refused),
            refusals=(*progress.refusals, *texts)[:REFUSALS],
            steps=progress.steps + 1,
        )

    async def _show(self, call: Call, kind: Kind, template: str, chosen: InvocationFilter, **data: Any) -> Reply:
        path = self._frame.page_path(self._frame.function_of(call), "/invocations")
        return await self._frame.show(
            call, template, tab="invocations", live=False, kind=kind, filter=chosen, list_path=path, **data
        )

    def _checked(self, call: Call, chosen: InvocationFilter) -> InvocationFilter:
        """Return a filter for the function of the path. Raises InvalidRequest if the API cannot filter so."""
        if chosen.text or chosen.request:
            raise InvalidRequest("many invocations cannot be chosen by text or request id; remove these filters")
        function = self._frame.function_of(call)
        own = self._frame.urn_of(function)
        if chosen.function and self._filters.urn(chosen, call.project).function == own:
            return chosen
        return replace(chosen, function=name_of(function))

    def _selection(self, call: Call, kind: Kind, chosen: InvocationFilter) -> Selection:
        selection = self._filters.selection(chosen, call.project, frozenset())
        if kind == "redrive" and not selection.codes:
            return replace(selection, without=frozenset({int(Code.CANCELLED)}))
        return selection

    def _operation(self, call: Call, chosen: InvocationFilter, name: str) -> str:
        urn = self._filters.urn(chosen, call.project)
        text = str(urn) if urn.qualified else urn.function
        return f"{BASE.format(project_id=call.project)}/functions/{quote(text, safe='')}/async-invocations/{name}"


LONGEST_REFUSAL = 300  #: characters


def _states(kind: Kind, status: str) -> frozenset[State]:
    return read_states(status) & (ACTIVE if kind == "cancel" else FAILED)


def _read(form: Form) -> Progress:
    return Progress(
        marker=form.text("marker"),
        done=whole_number("done", form.text("done"), 0),
        refused=whole_number("refused", form.text("refused"), 0),
        refusals=tuple(text[:LONGEST_REFUSAL] for text in form.all("refusal")[:REFUSALS]),
        total=whole_number("total", form.text("total"), 0),
        more="more" in form,
        steps=whole_number("steps", form.text("steps"), 0),
    )
