"""Page of queues: what waits and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from engine.asgi.wire import Reply
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.http.api.paging import page_of
from engine.http.api.routing import Call
from engine.http.console.pages import PageFamily, Pages, get
from engine.http.console.paths import QUEUES, name_of
from engine.model import Function, Invocation, Mode
from engine.model.controls import Controls
from engine.model.identity import Identity
from engine.pipeline.explanation import Explainer, Reason
from engine.protocols import Queued, Records
from engine.scheduling.backlog import Backlog
from engine.scheduling.runqueue import QueueStatistics
from engine.scheduling.scheduler import Scheduler

ROWS = 50
MOST = 10_000  #: invocations of a kind that are counted


class QueueRow(Struct, frozen=True, kw_only=True):
    """Queue of one function."""

    function: Function  #: version ``latest``
    name: str
    controls: Controls
    waiting: int
    kinds: Queued
    delayed: int | None  #: None: too many wait to tell
    running: int  #: attempts, synchronous calls included
    limit: int  #: largest number of concurrent runs; -1: no limit
    first: str  #: request id of the ready invocation that starts first; empty: none is ready
    reasons: Sequence[Reason]  #: for which no ready one starts; empty: the first one starts next


class QueueRows:
    """Reader of queues. ``runs`` returns the invocations that run now."""

    def __init__(
        self,
        catalog: Catalog,
        controls: FunctionControls,
        backlog: Backlog,
        scheduler: Scheduler,
        explainer: Explainer,
        records: Records,
        identity: Identity,
        runs: Callable[[], Iterable[Invocation]],
    ) -> None:
        self._catalog, self._controls, self._backlog, self._scheduler = catalog, controls, backlog, scheduler
        self._explainer, self._records, self._identity, self._runs = explainer, records, identity, runs

    def functions(self, project: str, *, busy: bool) -> Sequence[Function]:
        """Return the functions of a project by name; with ``busy``, those that are paused, or have work."""
        listed = sorted(self._catalog.list(project), key=name_of)
        return [function for function in listed if self._is_busy(function.function_id)] if busy else listed

    async def rows(self, functions: Sequence[Function]) -> list[QueueRow]:
        kinds = await self._records.queued([function.function_id for function in functions], MOST)
        running = Counter(run.function_id for run in self._runs() if run.mode is Mode.ASYNC)
        return [self._row(function, kinds.get(function.function_id, Queued()), running) for function in functions]

    def _is_busy(self, function_id: int) -> bool:
        return bool(
            self._backlog.of(function_id)[0]
            or self._controls.of(function_id).paused
            or self._scheduler.running(function_id)
        )

    def _row(self, function: Function, kinds: Queued, running: Counter[int]) -> QueueRow:
        function_id = function.function_id
        waiting = max(0, self._backlog.of(function_id)[0] - running[function_id])
        counted = kinds.ready < MOST and kinds.held < MOST
        return QueueRow(
            function=function,
            name=name_of(function),
            controls=self._controls.of(function_id),
            waiting=waiting,
            kinds=kinds,
            delayed=max(0, waiting - kinds.ready - kinds.held) if counted else None,
            running=self._scheduler.running(function_id),
            limit=self._scheduler.obstacles(function_id).limit,
            first=self._identity.request_id(kinds.first) if kinds.first is not None else "",
            reasons=self._explainer.reasons_of(function_id) if waiting else (),
        )


class QueuesPage(PageFamily):
    """Page of all queues of a project. ``statistics`` returns the numbers of the run queue of the engine."""

    def __init__(
        self,
        pages: Pages,
        rows: QueueRows,
        backlog: Backlog,
        statistics: Callable[[], QueueStatistics],
    ) -> None:
        self._pages, self._rows, self._backlog, self._statistics = pages, rows, backlog, statistics

    @get("ConsoleQueues", QUEUES)
    async def show(self, call: Call) -> Reply:
        whole = bool(call.text("all"))
        page = page_of(call, self._rows.functions(call.project, busy=not whole), "limit", maximum=ROWS)
        return await self._pages.show(
            call,
            "queues.html",
            live=True,
            page=page,
            limit=ROWS,
            rows=await self._rows.rows(page.items),
            most=MOST,
            whole=whole,
            filters="all=1&" if whole else "",
            backlog=self._backlog,
            queue=self._statistics(),
        )
