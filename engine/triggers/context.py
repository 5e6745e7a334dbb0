"""What the source of one trigger works with: its function, its cursors, and its door to the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio
import structlog

from engine.errors import BacklogFull, FunctionDisabled, OutcomeUnknown, ShuttingDown, Unavailable
from engine.model import Request
from engine.protocols import EVENT_LIMIT, CursorMove, Event
from engine.resources.bound_trigger import BoundTrigger
from engine.triggers.ingress import Door, Doors, Tally
from engine.triggers.plugin_contexts import PluginParts
from engine.triggers.supervisor import Keeper

log = structlog.get_logger("functiond.triggers")


class SourceContext(Door):
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
        super().__init__(trigger, plugin, doors, tally)
        self._keeper, self._positions = keeper, dict(positions)
        self.generation, self.since = trigger.stored.generation, trigger.stored.modified_at

    @property
    def deleted(self) -> bool:
        return self._keeper.deleted

    @property
    def cursors(self) -> Mapping[str, bytes]:
        return dict(self._positions)

    async def accept_batch(self, events: Sequence[Event], cursors: Mapping[str, bytes] | None = None) -> Sequence[str]:
        ids = [""] * len(events)
        kept = [place for place, event in enumerate(events) if len(event.payload) <= EVENT_LIMIT]
        requests = [self._request(events[place]) for place in kept]
        for place, request_id in zip(kept, await self._accept(requests, cursors or {}), strict=True):
            ids[place] = request_id
        self._positions.update(cursors or {})
        self._count(ids)
        return ids

    async def enabled(self) -> bool:
        return await self._doors.enabled(self._trigger.function_id)

    async def ended(self, request_id: str) -> None:
        key = self._doors.identity.key_of(request_id)
        if key is not None:
            await self._doors.dispatcher.ended(key, None)

    def trouble(self, problem: str) -> None:
        self._keeper.trouble(problem)

    def remark(self, text: str) -> None:
        self._keeper.remark(text)

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

    def _count(self, ids: Sequence[str]) -> None:
        refused = sum(not request_id for request_id in ids)
        self._tally.accepted += len(ids) - refused
        self._tally.refused += refused
        if refused:
            log.warning("events refused for good", trigger=self.trigger_id, kind=self.kind, events=refused)
