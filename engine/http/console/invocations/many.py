"""Actions on many invocations, of a function or of a project: cancel those that have not ended, redrive failed ones.

First a page has their number and some of them. Its form makes the first step, and the reply has a form for the next
one: a script sends it, or a button. All progress is in the forms, so that steps go on after a restart of the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

import anyio
from msgspec import UNSET, Struct
from msgspec.structs import replace

from engine.asgi.error_replies import status_of
from engine.asgi.wire import Reply
from engine.errors import AccessDenied, FunctiondError, InvalidRequest
from engine.functions.catalog import Catalog
from engine.http.api.invocation_actions import CancelledInvocations, RedrivenInvocations
from engine.http.api.records import ACTIVE, read_states
from engine.http.api.routing import BASE, Call, whole_number
from engine.http.console.forms import Form
from engine.http.console.functions.frame import FunctionFrame
from engine.http.console.invocations.filters import ANY, Filters, InvocationFilter, filter_of
from engine.http.console.pages import ADMIN, PageFamily, Pages, get, may, post
from engine.http.console.paths import FUNCTION, MANY, PROJECT, name_of, path_of
from engine.model import Code, Record, State
from engine.pipeline.redrive import FAILED
from engine.protocols import Count, Records, Selection

Kind = Literal["cancel", "redrive"]
LIMITS = {"cancel": 500, "redrive": 100}  #: invocations of a step of one function
TURN = 0.25  #: seconds after which a step begins no further function
REFUSALS = 20  #: refused invocations that the last page names
LONGEST_REFUSAL = 300  #: characters
SAMPLE = 10  #: invocations that the first page shows
COUNTED = 10_000
_OPERATIONS = {"cancel": "CancelAsyncInvocations", "redrive": "RedriveAsyncInvocations"}


class Progress(Struct, frozen=True, kw_only=True):
    """Progress after some steps, as hidden fields of a form have it."""

    function: str = ""  #: of a project: the last one that a step acted on; all before it are done
    marker: str = ""  #: place in this function; empty: it is done
    done: int = 0
    earlier: int = 0  #: done in earlier passes; another pass finds those that a pass has left out
    refused: int = 0
    refusals: tuple[str, ...] = ()  #: request id and reason of the first refused ones
    total: int = 0  #: number of invocations before the first step
    more: bool = False  #: the number is larger
    ended: bool = False


class Step(NamedTuple):
    progress: Progress
    error: FunctiondError | None = None
    function: str = ""  #: at which the error occurred


class ManyInvocations(PageFamily):
    """Pages of both actions. Each step is made of operations of the API."""

    def __init__(
        self, pages: Pages, frame: FunctionFrame, catalog: Catalog, records: Records, filters: Filters
    ) -> None:
        self._pages, self._frame, self._catalog, self._records, self._filters = pages, frame, catalog, records, filters

    @get("ConsoleCancelOfProject", MANY["cancel"], ADMIN, kind="cancel")
    @get("ConsoleCancelMany", f"{FUNCTION}/invocations/cancel", ADMIN, kind="cancel")
    @get("ConsoleRedriveOfProject", MANY["redrive"], ADMIN, kind="redrive")
    @get("ConsoleRedriveMany", f"{FUNCTION}/invocations/redrive", ADMIN, kind="redrive")
    async def _preview(self, call: Call, kind: Kind) -> Reply:
        """Show how many invocations match, and some of them."""
        listed = self._checked(call, kind, filter_of(call.text))
        chosen = self._filters.settled(listed)
        counts = dict[str, Count]()
        sample: Sequence[Record] = ()
        for state in (state for state in State if state in states_of(kind, chosen.status)):
            selection = self._selection(call, kind, replace(chosen, status=state.value))
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
            names=self._names(call.project),
            listed=listed,
            most=COUNTED,
        )

    @post("ConsoleCancelInvocationsOfProject", MANY["cancel"], kind="cancel")
    @post("ConsoleCancelInvocations", f"{FUNCTION}/invocations/cancel", kind="cancel")
    @post("ConsoleRedriveInvocationsOfProject", MANY["redrive"], kind="redrive")
    @post("ConsoleRedriveInvocations", f"{FUNCTION}/invocations/redrive", kind="redrive")
    async def _step(self, call: Call, form: Form, kind: Kind) -> Reply:
        chosen = self._checked(call, kind, filter_of(form.text))
        if "running" in form:
            chosen = replace(chosen, status=",".join(sorted(ACTIVE)))
        step = await self._advance(call, kind, chosen, _read(form))
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

    # --- inside ---------------------------------------------------------------------------------------------

    async def _show(self, call: Call, kind: Kind, content: str, chosen: InvocationFilter, **data: Any) -> Reply:
        """Show ``content``, a template, as a page of the function or of the project that the path names."""
        data |= {"content": content, "kind": kind, "filter": chosen, "live": False}
        data["title"] = "Cancel invocations" if kind == "cancel" else "Run failed invocations again"
        if "function" not in call.parts:
            data["list_path"] = f"{PROJECT}/invocations".format(project_id=call.project)
            data["act_path"] = MANY[kind].format(project_id=call.project)
            return await self._pages.show(call, "invocations/many_page.html", **data)
        data["list_path"] = path_of(self._frame.function_of(call), "/invocations")
        data["act_path"] = f"{data['list_path']}/{kind}"
        return await self._frame.show(call, "functions/many.html", tab="invocations", **data)

    def _checked(self, call: Call, kind: Kind, chosen: InvocationFilter) -> InvocationFilter:
        """Return a filter for the function of the path. Raises InvalidRequest if the API cannot filter so."""
        if not may(call, _OPERATIONS[kind]):
            raise AccessDenied(f"your role may not use {_OPERATIONS[kind]}")
        if chosen.text or chosen.request or chosen.parent or chosen.code == ANY:
            raise InvalidRequest(
                "many invocations cannot be chosen by text, request id, parent or any error; remove it"
            )
        if "function" not in call.parts:
            return chosen
        function = self._frame.function_of(call)
        if chosen.function and self._filters.urn(chosen, call.project).function == self._frame.urn_of(function):
            return chosen
        return replace(chosen, function=name_of(function))

    def _selection(self, call: Call, kind: Kind, chosen: InvocationFilter) -> Selection:
        """Return the invocations of ``chosen`` on which an action works."""
        selection = self._filters.selection(chosen, call.project, frozenset(self._names(call.project)))
        selection = replace(selection, states=states_of(kind, chosen.status))
        if kind == "redrive" and not selection.codes:
            return replace(selection, without=frozenset({int(Code.CANCELLED)}))
        return selection

    async def _advance(self, call: Call, kind: Kind, chosen: InvocationFilter, progress: Progress) -> Step:
        """Make one step, and return the progress after it, or the error that stopped it. Raises AccessDenied.

        A filter without a function stands for all functions of the project. A step acts on one function after the
        other, until it has handled ``LIMITS`` invocations or ``TURN`` seconds are over.
        """
        until, before = anyio.current_time() + TURN, progress.done
        for name in self._functions(call, chosen, progress):
            if anyio.current_time() >= until or progress.done - before >= LIMITS[kind]:
                return Step(progress=progress)
            try:
                progress = await self._act(call, kind, replace(chosen, function=name), progress)
            except AccessDenied:
                raise
            except FunctiondError as error:
                return Step(progress=progress, error=error, function=name)
            if progress.marker:
                return Step(progress=progress)
        if kind == "cancel" and progress.done > progress.earlier:  # some may have returned to the queue meanwhile
            return Step(progress=replace(progress, function="", marker="", earlier=progress.done))
        return Step(progress=replace(progress, ended=True))

    def _names(self, project: str) -> Mapping[int, str]:
        """Return the short names of a project's functions by their ids."""
        return {function.function_id: name_of(function) for function in self._catalog.list(project)}

    def _functions(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Iterator[str]:
        """Yield the names of the functions that are left, in their order."""
        if chosen.function:
            return iter([chosen.function])
        names = sorted(self._names(call.project).values())
        if progress.marker:
            return (name for name in names if name >= progress.function)
        return (name for name in names if name > progress.function)

    async def _act(self, call: Call, kind: Kind, chosen: InvocationFilter, progress: Progress) -> Progress:
        """Make a step of one function, unless it has no invocation that matches."""
        if progress.function != chosen.function:
            page = await self._records.search(self._selection(call, kind, chosen), None, 1)
            if not page.records and not page.more:
                return replace(progress, function=chosen.function, marker="")
            progress = replace(progress, marker="")
        after = await (self._cancel if kind == "cancel" else self._redrive)(call, chosen, progress)
        return replace(after, function=chosen.function)

    async def _cancel(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Progress:
        body = {"status": chosen.status, "limit": LIMITS["cancel"], "marker": progress.marker}
        target = self._operation(call, chosen, "cancel")
        reply = await self._frame.api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
        step = reply.read(CancelledInvocations)
        return replace(progress, marker=step.next_marker, done=progress.done + len(step.cancelled))

    async def _redrive(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Progress:
        body = {
            "failed": True,
            "status": ",".join(sorted(states_of("redrive", chosen.status))),
            "limit": LIMITS["redrive"],
            "marker": progress.marker,
            "counted": False,
        }
        target = self._operation(call, chosen, "redrive")
        reply = await self._frame.api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
        step = reply.read(RedrivenInvocations)
        refused = [] if step.refused is UNSET else step.refused
        texts = (f"{refusal.request_id} {refusal.error_message}"[:LONGEST_REFUSAL] for refusal in refused)
        return replace(
            progress,
            marker="" if step.next_marker is UNSET else step.next_marker,
            done=progress.done + sum(invocation.repeated is UNSET for invocation in step.redriven),
            refused=progress.refused + len(refused),
            refusals=(*progress.refusals, *texts)[:REFUSALS],
        )

    def _operation(self, call: Call, chosen: InvocationFilter, name: str) -> str:
        urn = self._filters.urn(chosen, call.project)
        text = str(urn) if urn.qualified else urn.function
        return f"{BASE.format(project_id=call.project)}/functions/{quote(text, safe='')}/async-invocations/{name}"


def states_of(kind: Kind, status: str) -> frozenset[State]:
    return read_states(status) & (ACTIVE if kind == "cancel" else FAILED)


def _read(form: Form) -> Progress:
    """Return the progress in a form. The button ``leave`` leaves out the function at which an error occurred."""
    return Progress(
        function=form.text("leave") or form.text("at"),
        marker="" if "leave" in form else form.text("marker"),
        done=whole_number("done", form.text("done"), 0),
        earlier=whole_number("earlier", form.text("earlier"), 0),
        refused=whole_number("refused", form.text("refused"), 0),
        refusals=tuple(text[:LONGEST_REFUSAL] for text in form.all("refusal")[:REFUSALS]),
        total=whole_number("total", form.text("total"), 0),
        more="more" in form,
    )
