"""Queues of functions as the console shows them: what waits, what runs, and why no more starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct

from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.http.console.paths import name_of
from engine.model import Function, Invocation, Mode
from engine.model.controls import Controls
from engine.model.identity import Identity
from engine.pipeline.explanation import Explainer, Reason
from engine.protocols import Queued, Records
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

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
        found = sorted(self._catalog.list(project), key=name_of)
        return [one for one in found if self._is_busy(one.function_id)] if busy else found

    async def rows(self, functions: Sequence[Function]) -> list[QueueRow]:
        kinds = await self._records.queued([one.function_id for one in functions], MOST)
        running = self._running()
        return [self._row(one, kinds.get(one.function_id, Queued()), running) for one in functions]

    # --- inside ---------------------------------------------------------------------------------------------

    def _is_busy(self, function_id: int) -> bool:
        return bool(
            self._backlog.of(function_id)[0]
            or self._controls.of(function_id).paused
            or self._scheduler.running(function_id)
        )

    def _running(self) -> Mapping[int, int]:
        return Counter(one.function_id for one in self._runs() if one.mode is Mode.ASYNC)

    def _waiting(self, function_id: int, running: Mapping[int, int]) -> int:
        return max(0, self._backlog.of(function_id)[0] - running.get(function_id, 0))

    def _row(self, function: Function, kinds: Queued, running: Mapping[int, int]) -> QueueRow:
        function_id = function.function_id
        waiting = self._waiting(function_id, running)
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
