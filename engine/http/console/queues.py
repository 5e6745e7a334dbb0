"""Console page of queues: what waits and why, with pause and resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.asgi.wire import Reply
from engine.errors import FunctiondError
from engine.http.api.paging import page_of
from engine.http.api.routing import Call, Handler
from engine.http.console.api_requests import ApiRequests
from engine.http.console.forms import Form, errors_of
from engine.http.console.function_frame import FunctionFrame
from engine.http.console.notes import see_other
from engine.http.console.pages import Action, Pages
from engine.http.console.paths import QUEUE, QUEUES
from engine.http.console.queue_rows import MOST, QueueRows
from engine.scheduling.backlog import Backlog
from engine.scheduling.queue_statistics import QueueStatistics

ROWS = 50


class QueuesPage:
    """Page of all queues of a project. ``statistics`` returns the numbers of the run queue of the engine."""

    def __init__(
        self,
        pages: Pages,
        rows: QueueRows,
        frame: FunctionFrame,
        api: ApiRequests,
        backlog: Backlog,
        statistics: Callable[[], QueueStatistics],
    ) -> None:
        self._pages, self._rows, self._frame, self._api = pages, rows, frame, api
        self._backlog, self._statistics = backlog, statistics

    def pages(self) -> Mapping[str, Handler]:
        return {QUEUES: self._show}

    def actions(self) -> Mapping[str, Action]:
        return {f"{QUEUE}/pause": self.pause, f"{QUEUE}/resume": self.resume}

    async def pause(self, call: Call, form: Form) -> Reply:
        function = self._frame.function_of(call)
        try:
            await self._api.send(
                call, "POST", self._frame.api_path(function, "/pause"), {"reason": form.text("reason")}
            )
        except FunctiondError as error:
            wrong = {"wrong": function.function_id, "errors": errors_of(error), "typed": form.text("reason")}
            return await self._show(call, live=False, **wrong)
        return see_other(_back(call), "Paused. Requests are accepted and wait.")

    async def resume(self, call: Call, form: Form) -> Reply:
        await self._api.send(call, "POST", self._frame.api_path(self._frame.function_of(call), "/resume"))
        return see_other(_back(call), "Resumed.")

    async def _show(self, call: Call, *, live: bool = True, **data: Any) -> Reply:
        whole = bool(call.text("all"))
        page = page_of(call, self._rows.functions(call.project, busy=not whole), "limit", maximum=ROWS)
        return await self._pages.show(
            call,
            "queues.html",
            live=live,
            page=page,
            limit=ROWS,
            rows=await self._rows.rows(page.items),
            most=MOST,
            whole=whole,
            filters="all=1&" if whole else "",
            backlog=self._backlog,
            queue=self._statistics(),
            **{"wrong": 0, "errors": {}, "typed": "", **data},
        )


def _back(call: Call) -> str:
    return QUEUES.format(project_id=call.project)
