"""Event sink of one trigger, and the context that its running source gets: the sink, cursors, and the trigger's state.

An event sink accepts events as soon as the trigger is stored, even if its source does not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import anyio
import structlog
from msgspec import Struct

from engine.errors import (
    BacklogFull,
    FunctiondError,
    FunctionDisabled,
    OutcomeUnknown,
    PayloadTooLarge,
    ShuttingDown,
    Unavailable,
)
from engine.functions.catalog import Catalog
from engine.metrics.loop_lag import LoopLag
from engine.model import Function, Mode, Outcome, Request
from engine.model.identity import Identity
from engine.model.trace import trace_of
from engine.model.urn import LATEST, FunctionUrn, parse_urn
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.intake import Intake
from engine.protocols import EVENT_LIMIT, Check, Cursors, Event, EventSink
from engine.resources.bound_trigger import BoundTrigger
from engine.scheduling.backlog import Backlog
from engine.triggers.plugin_contexts import EnginePluginContext
from engine.triggers.supervisor import Supervisor

log = structlog.get_logger("functiond.triggers")


class EnabledFunctions:
    """Waits for functions whose ``max_instances`` is 0."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiters: dict[asyncio.Future[None], int] = {}

    async def wait_for(self, function_id: int) -> bool:
        """Wait until a function is enabled or deleted. Return whether the call waited."""
        waited = False
        while (function := self._catalog.resolve(function_id, LATEST)) is not None and function.max_instances == 0:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[waiter], waited = function_id, True
            try:
                await waiter
            finally:
                del self._waiters[waiter]
        return waited

    def follow(self, function_id: int, latest: Function | None) -> None:
        """Wake the waits for a function that has changed."""
        for waiter, wanted in self._waiters.items():
            if wanted == function_id and not waiter.done():
                waiter.set_result(None)


class IngressDeps(Struct, frozen=True, kw_only=True):
    """Parts of the engine that event sinks and sources use."""

    intake: Intake
    cursors: Cursors
    backlog: Backlog
    identity: Identity
    dispatcher: Dispatcher
    enabled: EnabledFunctions
    lag: LoopLag


class Tally:
    """Counts of a trigger's events since the engine started."""

    def __init__(self) -> None:
        self.accepted = self.refused = self.lost = 0
        self.lag: dict[str, int] = {}  #: events that the source has not read yet, by cursor name; empty: unknown


class TriggerIngress:
    """Event sink of one trigger. Passes events to the intake as requests for the trigger's function."""

    def __init__(self, trigger: BoundTrigger, plugin: EnginePluginContext, deps: IngressDeps, tally: Tally) -> None:
        self._trigger, self._deps, self._tally = trigger, deps, tally
        self._urn: FunctionUrn = parse_urn(trigger.function, region=plugin.region, project=trigger.project)
        self.plugin = plugin
        self.trigger_id, self.kind, self.mode = trigger.id, trigger.kind, trigger.mode
        self.function, self.project = trigger.function, trigger.project
        self._entry = f"trigger {trigger.kind} {trigger.id}"

    async def accept(self, event: Event) -> str:
        _check_size(event)
        request_id = await self._deps.intake.accept(self._request(event))
        self._tally.accepted += 1
        return request_id

    async def accept_with(self, event: Event, others: Sequence[tuple[EventSink, Event]]) -> Sequence[str]:
        pairs = [(self, event), *cast("Sequence[tuple[TriggerIngress, Event]]", others)]
        for _, given in pairs:
            _check_size(given)
        ids = await self._deps.intake.accept_batch(
            [ingress._request(given, accept_when_disabled=True) for ingress, given in pairs]
        )
        for (ingress, _), request_id in zip(pairs, ids, strict=True):
            ingress._tally.accepted += bool(request_id)
        return ids

    async def call(self, event: Event) -> tuple[str, Outcome]:
        _check_size(event)
        request_id, _, outcome = await self._deps.intake.call(self._request(event, Mode.SYNC))
        self._tally.accepted += 1
        return request_id, outcome

    def _request(self, event: Event, mode: Mode = Mode.ASYNC, *, accept_when_disabled: bool = False) -> Request:
        self._deps.lag.enter(self._entry)
        return Request(
            function=self._urn,
            payload=event.payload,
            mode=mode,
            source=self.kind,
            trigger_id=self.trigger_id if mode is Mode.ASYNC else "",
            idempotency_key=event.idempotency_key,
            ordering_key=event.ordering_key,
            headers=event.headers,
            hops=event.hops,
            accept_when_disabled=accept_when_disabled,
            trace=trace_of(event.traceparent) if event.traceparent else "",
            http_members=event.http_members,
        )


def _check_size(event: Event) -> None:
    # An event of a gateway has the body in base64, which is a third longer. The gateway has limited the body itself.
    limit = EVENT_LIMIT if event.http_members is None else EVENT_LIMIT * 3 // 2
    if len(event.payload) > limit:
        raise PayloadTooLarge(EVENT_LIMIT)


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

    def report_refused(self, text: str) -> None:
        self._tally.refused += 1
        self._supervisor.report_refused(text)

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
