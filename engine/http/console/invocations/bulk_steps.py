"""Steps of an action on many invocations: of one function, or of all functions of a project, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote

import anyio
from msgspec import UNSET, Struct
from msgspec.structs import replace

from engine.errors import AccessDenied, FunctiondError
from engine.functions.catalog import Catalog
from engine.http.api.invocation_actions import CancelledInvocations, RedrivenInvocations
from engine.http.api.records import ACTIVE, read_states
from engine.http.api.routing import BASE, Call
from engine.http.console.api_requests import ApiRequests
from engine.http.console.function_links import name_of
from engine.http.console.invocations.filters import Filters, InvocationFilter
from engine.model import Code, State
from engine.pipeline.redrive import FAILED
from engine.protocols import Records, Selection

Kind = Literal["cancel", "redrive"]
LIMITS = {"cancel": 500, "redrive": 100}  #: invocations of a step of one function
TURN = 0.25  #: seconds after which a step begins no further function
REFUSALS = 20  #: refused invocations that the last page names
LONGEST_REFUSAL = 300  #: characters


class Progress(Struct, frozen=True, kw_only=True):
    """Progress after some steps, as hidden fields of a form have it."""

    function: str = ""  #: of a project: the last one that a step acted on; all before it are done
    marker: str = ""  #: place in this function; empty: it is done
    done: int = 0
    refused: int = 0
    refusals: tuple[str, ...] = ()  #: request id and reason of the first refused ones
    total: int = 0  #: number of invocations before the first step
    more: bool = False  #: the number is larger
    ended: bool = False


class Step(NamedTuple):
    progress: Progress
    error: FunctiondError | None = None
    function: str = ""  #: at which the error occurred


class BulkSteps:
    """Steps of cancelling and redriving, each made of operations of the API."""

    def __init__(self, catalog: Catalog, records: Records, filters: Filters, api: ApiRequests) -> None:
        self._catalog, self._records, self._filters, self._api = catalog, records, filters, api

    def selection(self, call: Call, kind: Kind, chosen: InvocationFilter) -> Selection:
        """Return the invocations of ``chosen`` on which an action works."""
        selection = self._filters.selection(chosen, call.project, frozenset(self.names(call.project)))
        selection = replace(selection, states=states_of(kind, chosen.status))
        if kind == "redrive" and not selection.codes:
            return replace(selection, without=frozenset({int(Code.CANCELLED)}))
        return selection

    async def step(self, call: Call, kind: Kind, chosen: InvocationFilter, progress: Progress) -> Step:
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
        return Step(progress=replace(progress, ended=True))

    def names(self, project: str) -> Mapping[int, str]:
        """Return the short names of a project's functions by their ids."""
        return {one.function_id: name_of(one) for one in self._catalog.list(project)}

    # --- inside ---------------------------------------------------------------------------------------------

    def _functions(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Iterator[str]:
        """Yield the names of the functions that are left, in their order."""
        if chosen.function:
            return iter([chosen.function])
        names = sorted(self.names(call.project).values())
        if progress.marker:
            return (name for name in names if name >= progress.function)
        return (name for name in names if name > progress.function)

    async def _act(self, call: Call, kind: Kind, chosen: InvocationFilter, progress: Progress) -> Progress:
        """Make a step of one function, unless it has no invocation that matches."""
        if progress.function != chosen.function:
            found = await self._records.search(self.selection(call, kind, chosen), None, 1)
            if not found.records and not found.more:
                return replace(progress, function=chosen.function, marker="")
            progress = replace(progress, marker="")
        after = await (self._cancel if kind == "cancel" else self._redrive)(call, chosen, progress)
        return replace(after, function=chosen.function)

    async def _cancel(self, call: Call, chosen: InvocationFilter, progress: Progress) -> Progress:
        body = {"status": chosen.status, "limit": LIMITS["cancel"], "marker": progress.marker}
        target = self._operation(call, chosen, "cancel")
        reply = await self._api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
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
        reply = await self._api.send(call, "POST", target, {**self._filters.api_body(chosen), **body})
        step = reply.read(RedrivenInvocations)
        refused = [] if step.refused is UNSET else step.refused
        texts = (f"{one.request_id} {one.error_message}"[:LONGEST_REFUSAL] for one in refused)
        return replace(
            progress,
            marker="" if step.next_marker is UNSET else step.next_marker,
            done=progress.done + sum(one.repeated is UNSET for one in step.redriven),
            refused=progress.refused + len(refused),
            refusals=(*progress.refusals, *texts)[:REFUSALS],
        )

    def _operation(self, call: Call, chosen: InvocationFilter, name: str) -> str:
        urn = self._filters.urn(chosen, call.project)
        text = str(urn) if urn.qualified else urn.function
        return f"{BASE.format(project_id=call.project)}/functions/{quote(text, safe='')}/async-invocations/{name}"


def states_of(kind: Kind, status: str) -> frozenset[State]:
    return read_states(status) & (ACTIVE if kind == "cancel" else FAILED)
