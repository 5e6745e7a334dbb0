"""Context that a running source gets: data of its trigger and function, cursors, and acceptance of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import structlog

from engine.errors import BacklogFull, FunctiondError, FunctionDisabled, OutcomeUnknown, ShuttingDown, Unavailable
from engine.model import Request
from engine.protocols import EVENT_LIMIT, Check, Event
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.ingress import IngressDeps, Tally, TriggerIngress
from engine.triggers.plugin_contexts import EnginePluginContext
from engine.triggers.supervisor import Supervisor

log = structlog.get_logger("functiond.triggers")


class SourceContext(TriggerIngress):
    """Context of a source from one start to its end. Accepts events together with moves of the trigger's cursors."""

    def __init__(
        self,
        trigger: BoundTrigger,
        plugin: EnginePluginContext,
        deps: IngressDeps,
        supervisor: Supervisor,
        tally: Tally,
        positions: Mapping[str, bytes],
    ) -> None:
        super().__init__(trigger, plugin, deps, tally)
        self._supervisor, self._positions = supervisor, dict(positions)
        self.report_problem, self.report_notice = supervisor.report_problem, supervisor.report_notice
        self.generation, self.since = trigger.stored.generation, trigger.stored.modified_at
        self.enabled_generation = trigger.stored.enabled
        self.claimed = trigger.stored.claimed_at or trigger.stored.created_at

    @property
    def deleted(self) -> bool:
        return self._supervisor.deleted

    @property
    def cursors(self) -> Mapping[str, bytes]:
        return dict(self._positions)

    async def accept_batch(
        self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None, *, check: Check | None = None
    ) -> Sequence[str]:
        ids = [""] * len(events)
        fitting = [index for index, event in enumerate(events) if len(event.payload) <= EVENT_LIMIT]
        requests = [self._request(events[index]) for index in fitting]
        for index, request_id in zip(fitting, await self._accept(requests, cursors or {}, check), strict=True):
            ids[index] = request_id
        self._positions.update(cursors or {})
        self._count(ids)
        return ids

    async def enabled(self) -> bool:
        return await self._deps.enabled.wait_for(self._trigger.function_id)

    async def ended(self, request_id: str) -> None:
        key = self._deps.identity.key_of(request_id)
        if key is not None:
            await self._deps.dispatcher.ended(key, None)

    def report_lost(self, text: str, events: int) -> None:
        self._tally.lost += events
        self._supervisor.report_lost(text, events)

    def report_lag(self, lag: Mapping[str, int]) -> None:
        self._tally.lag = dict(lag)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _accept(
        self, requests: Sequence[Request], positions: Mapping[str, bytes], check: Check | None
    ) -> Sequence[str]:
        """Store the requests and move the cursors in one transaction. Return the request ids.

        After a temporary rejection, show it in the source's state, wait, and ``check`` before the next try.
        """
        try:
            while True:
                try:
                    move = self._trigger.move(self._positions, positions) if positions else None
                    return await self._deps.intake.accept_batch(requests, move)
                except OutcomeUnknown:
                    raise  # only the cursors on disk are certain: the restarted source reads them
                except (BacklogFull, FunctionDisabled, Unavailable) as problem:
                    await self._wait(problem, requests)
                if check is not None:
                    await check()
        finally:
            self._supervisor.report_wait("")

    async def _wait(self, problem: FunctiondError, requests: Sequence[Request]) -> None:
        """Wait until requests that were rejected can be tried again. Never return while the engine shuts down."""
        if isinstance(problem, ShuttingDown):
            await anyio.sleep_forever()  # the next engine continues from the cursors
        self._supervisor.report_wait(f"paused: {problem}")
        if isinstance(problem, BacklogFull):
            size = sum(len(request.payload) for request in requests)
            await self._deps.backlog.wait_for_room(self._trigger.function_id, len(requests), size)
        elif isinstance(problem, Unavailable):
            await anyio.sleep(problem.retry_after)
        else:
            await self._deps.enabled.wait_for(self._trigger.function_id)

    def _count(self, ids: Sequence[str]) -> None:
        refused = sum(not request_id for request_id in ids)
        self._tally.accepted += len(ids) - refused
        self._tally.refused += refused
        if refused:
            log.warning("events rejected permanently", trigger=self.trigger_id, kind=self.kind, events=refused)
