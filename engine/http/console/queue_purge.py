"""Console pages that cancel what waits of a function: count and sample, confirmation, then steps with their progress.

The state of the steps is in the form of each page. A small script sends it on; without the script, a button does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.invocation_actions import CancelledInvocations
from engine.http.api.routing import Call, Handler
from engine.http.api.times import short_time
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form, error_of_whole, struct_of
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.function_links import name_of
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import QUEUE
from engine.http.console.queue_rows import QueueRows
from engine.model import Function, State
from engine.model.clock import Clock
from engine.protocols import Records, Selection

SAMPLE = 10  #: invocations shown before anything happens


class Purge(Struct, frozen=True, kw_only=True):
    """State of a purge between two steps."""

    until: str  #: only invocations accepted until this second (UTC)
    running: bool = False  #: cancel running ones, too
    total: int = 0  #: invocations that waited at the begin
    done: int = 0
    round: int = 0  #: ended in this pass over the queue; another pass finds those that it has left out
    marker: str = "0"


class QueuePurge:
    def __init__(
        self, pages: Pages, rows: QueueRows, frame: FunctionFrame, api: ApiRequests, records: Records, clock: Clock
    ) -> None:
        self._pages, self._rows, self._frame, self._api = pages, rows, frame, api
        self._records, self._clock = records, clock

    def pages(self) -> Mapping[str, Handler]:
        return {f"{QUEUE}/purge": self.show}

    def actions(self) -> Mapping[str, Action]:
        return {f"{QUEUE}/purge": self.purge}

    async def show(self, call: Call) -> Reply:
        function = self._frame.function_of(call)
        [row] = await self._rows.rows([function])
        waiting = Selection(function_id=function.function_id, states=frozenset({State.WAIT}))
        sample = (await self._records.search(waiting, None, SAMPLE)).records
        purge = Purge(until=short_time(self._clock.now()), total=row.waiting)
        return await self._show(call, function, "queues/purge.html", purge=purge, row=row, sample=sample)

    async def purge(self, call: Call, form: Form) -> Reply:
        """Make one step, and show the progress, or the result after the last step."""
        function, purge = self._frame.function_of(call), struct_of(form, Purge)
        states = (State.WAIT, State.RUNNING) if purge.running else (State.WAIT,)
        body = {"status": ",".join(states), "query_end_time": purge.until, "marker": purge.marker}
        try:
            path = self._frame.api_path(function, "/async-invocations/cancel")
            step = (await self._api.send(call, "POST", path, body)).read(CancelledInvocations)
        except FunctiondError as error:
            errors = error_of_whole(error)
            return await self._show(call, function, "queues/purging.html", purge=purge, ended=False, errors=errors)
        purge, ended = _after(purge, step)
        return await self._show(call, function, "queues/purging.html", purge=purge, ended=ended, errors={})

    async def _show(self, call: Call, function: Function, template: str, **data: Any) -> Reply:
        name = name_of(function)
        return await self._pages.show(call, template, live=False, name=name, **data)


def _after(purge: Purge, step: CancelledInvocations) -> tuple[Purge, bool]:
    """Return the state after a step, and whether it was the last one."""
    done, in_round = purge.done + len(step.cancelled), purge.round + len(step.cancelled)
    after = replace(
        purge,
        total=max(purge.total, done),
        done=done,
        round=in_round if step.next_marker else 0,
        marker=step.next_marker or "0",
    )
    return after, not step.next_marker and not in_round
