"""Cancellation of many invocations of a function, in steps of limited size between which others are accepted.

All progress is on disk: a step ends invocations, and the caller keeps the place that it has reached. A caller of an
engine that takes over continues from the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import Unavailable
from engine.model import Code, Outcome, State
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.pipeline.cancellation import CANCELLED, Cancellation
from engine.pipeline.ends import Ends
from engine.protocols import Journal, Place, Records, Selection
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

BATCH = 100  #: invocations that one commit ends
MOST_RUNNING = 500  #: running invocations that one step cancels


class CancelStep(Struct, frozen=True, kw_only=True):
    """Result of one step: the invocations that it ended."""

    keys: tuple[int, ...]
    reached: Place | None  #: ``after`` for the next step; None: this was the last step


class BulkCancellation:
    """Ends waiting invocations as FAIL with code 4208. ``ends_stored(function_id, keys)`` announces ends on disk."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        journal: Journal,
        records: Records,
        backlog: Backlog,
        clock: Clock,
        ends: Ends,
        running: Container[int],
        single: Cancellation,
    ) -> None:
        self.ends_stored: Signal[[int, Sequence[int]]] = Signal()
        self._scheduler, self._journal, self._records = scheduler, journal, records
        self._backlog, self._clock, self._ends = backlog, clock, ends
        self._running, self._single = running, single

    async def step(self, selection: Selection, states: frozenset[State], after: Place, limit: int) -> CancelStep:
        """End up to ``limit`` invocations of one function that match and are in ``states``: WAIT, RUNNING or both.

        Running ones are cancelled after all waiting ones. An invocation that starts, or whose delay ends, while the
        steps are made may be left out. If the storage refuses a write after some ends, the step ends early, and the
        next one begins at the same place. If it refuses the first write, its error is raised.
        """
        ended, reached = list[int](), None
        if State.WAIT in states:
            scan = await self._records.waiting(selection, after, limit)
            reached = scan.reached
            for begin in range(0, len(scan.keys), BATCH):
                try:
                    ended += await self._end(selection.function_id, scan.keys[begin : begin + BATCH])
                except Unavailable:
                    if not ended:
                        raise
                    return CancelStep(keys=tuple(ended), reached=after)
        if State.RUNNING in states and reached is None:
            ended += await self._end_running(selection)
        return CancelStep(keys=tuple(ended), reached=reached)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _end(self, function_id: int, keys: Sequence[int]) -> Sequence[int]:
        """End waiting invocations in one commit, except those that run meanwhile. Return the keys of those that ended.

        As for a single cancellation, the scheduler starts none of them until their end is on disk or refused.
        """
        for key in keys:
            self._scheduler.withhold(function_id, key)
        held = list(keys)
        try:
            await asyncio.sleep(0)  # lets slots start the entries that they were given
            for key in [key for key in held if key in self._running]:
                held.remove(key)
                self._scheduler.reinstate(key, ended=False)
            outcome = Outcome(code=Code.CANCELLED, message=CANCELLED, ended_at=self._clock.now())
            decided = self._journal.cancel_all(
                held, outcome, then=lambda found, stored: self._decided(function_id, held, found, stored)
            )
        except BaseException:
            for key in held:
                self._scheduler.reinstate(key, ended=False)
            raise
        return [key for key, _ in await decided]

    def _decided(self, function_id: int, keys: Sequence[int], found: Sequence[tuple[int, int]], stored: bool) -> None:
        """Update scheduler and counters. Called when the journal has stored or refused the ends."""
        for key in keys:
            self._scheduler.reinstate(key, ended=stored)
        if not found:
            return
        self._backlog.remove(function_id, sum(size for _, size in found), rows=len(found))
        self._ends.note_code(Code.CANCELLED, len(found))
        for key, _ in found:
            self._ends.note_end(key, State.FAIL)
        self.ends_stored(function_id, [key for key, _ in found])

    async def _end_running(self, selection: Selection) -> Sequence[int]:
        running = replace(selection, states=frozenset({State.RUNNING}), limit=MOST_RUNNING)
        found, _ = await self._records.list(running)
        ends = await asyncio.gather(*(self._cancelled(record.key) for record in found))
        return [record.key for record, ended in zip(found, ends, strict=True) if ended]

    async def _cancelled(self, key: int) -> bool:
        try:
            return await self._single.cancel(key)
        except Unavailable:
            return False  # the end is not on disk, or not yet
