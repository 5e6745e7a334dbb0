"""Event sink of one trigger. Accepts events as soon as the trigger is stored, even if its source does not run."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from engine.errors import PayloadTooLarge
from engine.metrics.loop_lag import LoopLag
from engine.model import Mode, Outcome, Request
from engine.model.identity import Identity
from engine.model.trace import trace_of
from engine.model.urn import FunctionUrn, parse_urn
from engine.pipeline.dispatcher import Dispatcher
from engine.pipeline.intake import Intake
from engine.protocols import EVENT_LIMIT, Cursors, Event, EventSink
from engine.resources.bound_trigger import BoundTrigger
from engine.scheduling.backlog import Backlog
from engine.triggers.enabled_functions import EnabledFunctions
from engine.triggers.plugin_contexts import EnginePluginContext


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
        pairs: list[tuple[TriggerIngress, Event]] = [(self, event)]
        for ingress, other in others:
            assert isinstance(ingress, TriggerIngress)
            pairs.append((ingress, other))
        for _, one in pairs:
            _check_size(one)
        ids = await self._deps.intake.accept_batch(
            [ingress._request(one, accept_when_disabled=True) for ingress, one in pairs]
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
    if len(event.payload) > EVENT_LIMIT:
        raise PayloadTooLarge(EVENT_LIMIT)
