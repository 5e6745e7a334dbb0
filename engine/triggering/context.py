"""What the source of one trigger works with: its function, its cursors, and the door to the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import anyio
import structlog
from msgspec import Struct

from engine.dispatcher import Dispatcher
from engine.errors import BacklogFull, FunctionDisabled, OutcomeUnknown, PayloadTooLarge, ShuttingDown, Unavailable
from engine.identity import Identity
from engine.intake import Intake
from engine.model import Mode, Outcome, Request
from engine.protocols import CursorMove, Cursors
from engine.resources.bound_trigger import BoundTrigger
from engine.scheduling.backlog import Backlog
from engine.trigger_seams import EVENT_LIMIT, Event, TriggerContext
from engine.triggering.keeper import Keeper
from engine.triggering.plugin_parts import PluginParts
from engine.urn import FunctionUrn, parse_urn

log = structlog.get_logger("functiond.triggering")


class Doors(Struct, frozen=True, kw_only=True):
    """Where sources bring what they have."""

    intake: Intake
    cursors: Cursors
    backlog: Backlog
    identity: Identity
    dispatcher: Dispatcher
    enabled: Callable[[int], Awaitable[bool]]  #: returns once the function may run, or is gone: whether that took time


class Tally:
    """What came of a trigger's events since the engine started."""

    def __init__(self) -> None:
        self.accepted = self.refused = 0


class SourceContext:
    """Satisfies ``TriggerContext``."""

    def __init__(
        self,
        trigger: BoundTrigger,
        plugin: PluginParts,
        doors: Doors,
        keeper: Keeper,
        tally: Tally,
        positions: Mapping[str, bytes],
    ) -> None:
        self._trigger, self._doors, self._keeper, self._tally = trigger, doors, keeper, tally
        self._positions = dict(positions)
        self._urn: FunctionUrn = parse_urn(trigger.function, region=plugin.region, project=trigger.project)
        self.plugin = plugin
        self.trigger_id, self.kind, self.mode = trigger.id, trigger.kind, trigger.mode
        self.function, self.project = trigger.function, trigger.project
        self.generation, self.since = trigger.stored.generation, trigger.stored.modified_at

    @property
    def deleted(self) -> bool:
        return self._keeper.deleted

    @property
    def cursors(self) -> Mapping[str, bytes]:
        return dict(self._positions)

    async def accept(self, event: Event) -> str:
        _check_size(event)
        request_id = await self._doors.intake.accept(self._request(event))
        self._tally.accepted += 1
        return request_id

    async def accept_with(self, event: Event, others: Sequence[tuple[TriggerContext, Event]]) -> Sequence[str]:
        pairs: list[tuple[SourceContext, Event]] = [(self, event)]
        for context, other in others:
            assert isinstance(context, SourceContext)
            pairs.append((context, other))
        for _, one in pairs:
            _check_size(one)
        ids = await self._doors.intake.accept_batch([context._request(one, patient=True) for context, one in pairs])
        for (context, _), request_id in zip(pairs, ids, strict=True):
            context._tally.accepted += bool(request_id)
        return ids

    async def accept_batch(self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None) -> Sequence[str]:
        ids = [""] * len(events)
        kept = [place for place, event in enumerate(events) if len(event.payload) <= EVENT_LIMIT]
        requests = [self._request(events[place]) for place in kept]
        for place, request_id in zip(kept, await self._accept(requests, cursors or {}), strict=True):
            ids[place] = request_id
        self._positions.update(cursors or {})
        self._count(ids)
        return ids

    async def call(self, event: Event) -> tuple[str, Outcome]:
        _check_size(event)
        request_id, _, outcome = await self._doors.intake.call(self._request(event, Mode.SYNC))
        self._tally.accepted += 1
        return request_id, outcome

    async def enabled(self) -> bool:
        return await self._doors.enabled(self._trigger.function_id)

    async def ended(self, request_id: str) -> None:
        key = self._doors.identity.key_of(request_id)
        if key is not None:
            await self._doors.dispatcher.ended(key, None)

    def trouble(self, problem: str) -> None:
        self._keeper.trouble(problem)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _accept(self, requests: Sequence[Request], positions: Mapping[str, bytes]) -> Sequence[str]:
        """Until it is stored; what is in the way goes away some day, and nothing may be lost for it."""
        while True:
            try:
                ids = await self._doors.intake.accept_batch(requests, self._move(positions))
            except BacklogFull as full:
                self._keeper.note(f"paused: {full}")
                size = sum(len(request.payload) for request in requests)
                await self._doors.backlog.wait_for_room(self._trigger.function_id, len(requests), size)
            except FunctionDisabled as disabled:
                self._keeper.note(f"paused: {disabled}")
                await self._doors.enabled(self._trigger.function_id)
            except ShuttingDown:
                await anyio.sleep_forever()  # the next engine goes on from the cursors
            except OutcomeUnknown:
                raise  # only the cursors on disk can tell: start again from them
            except Unavailable as problem:
                self._keeper.note(f"paused: {problem}")
                await anyio.sleep(problem.retry_after)
            else:
                self._keeper.note("")
                return ids

    def _move(self, positions: Mapping[str, bytes]) -> CursorMove | None:
        if not positions:
            return None
        return CursorMove(
            trigger_id=self.trigger_id,
            owner=self._trigger.resource().owner,
            generation=self.generation,
            expected={name: self._positions.get(name) for name in positions},
            positions=positions,
        )

    def _request(self, event: Event, mode: Mode = Mode.ASYNC, *, patient: bool = False) -> Request:
        return Request(
            function=self._urn,
            payload=event.payload,
            mode=mode,
            source=self.kind,
            idempotency_key=event.idempotency_key,
            headers=event.headers,
            hops=event.hops,
            patient=patient,
        )

    def _count(self, ids: Sequence[str]) -> None:
        refused = sum(not request_id for request_id in ids)
        self._tally.accepted += len(ids) - refused
        self._tally.refused += refused
        if refused:
            log.warning("events refused for good", trigger=self.trigger_id, kind=self.kind, events=refused)


def _check_size(event: Event) -> None:
    if len(event.payload) > EVENT_LIMIT:
        raise PayloadTooLarge(EVENT_LIMIT)
