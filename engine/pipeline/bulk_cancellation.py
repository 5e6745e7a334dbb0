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
from engine.protocols import Journal, Place, Records, Selection, WaitingEnd
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

BATCH = 100  #: invocations that one commit ends
REST = 0.05  #: longest pause in seconds after a commit
MOST_RUNNING = 500  #: running invocations that one step cancels


class CancelStep(Struct, frozen=True, kw_only=True):
    """Result of one step: the invocations that it ended."""

    keys: tuple[int, ...]
    reached: Place | None  #: ``after`` for the next step; None: this was the last step


class BulkCancellation:
    """Ends waiting invocations, without starting them. ``ends_stored(keys)`` announces ends that are on disk,
    ``ended(function_id, end, rows)`` their number, and ``delivery_added()`` that a destination gets them.
    """

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
        self.ends_stored: Signal[[Sequence[int]]] = Signal()
        self.ended: Signal[[int, WaitingEnd, int]] = Signal()
        self.delivery_added: Signal[[]] = Signal()
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
            elapsed = asyncio.get_running_loop().time
            for begin in range(0, len(scan.keys), BATCH):
                since = elapsed()
                try:
                    end = WaitingEnd(state=State.FAIL, outcome=_cancelled(self._clock.now()))
                    ended += await self.end(selection.function_id, scan.keys[begin : begin + BATCH], end)
                except Unavailable:
                    if not ended:
                        raise
                    return CancelStep(keys=tuple(ended), reached=after)
                await asyncio.sleep(min(elapsed() - since, REST))  # half of the time is left to other work
        if State.RUNNING in states and reached is None:
            running = await self._end_running(selection)
            ended += running
            reached = after if len(running) == MOST_RUNNING else None  # there may be more
        return CancelStep(keys=tuple(ended), reached=reached)

    async def end(self, function_id: int, keys: Sequence[int], end: WaitingEnd) -> Sequence[int]:
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
            decided = self._journal.end_all(
                held, end, then=lambda found, stored: self._decided(function_id, held, end, found if stored else None)
            )
        except BaseException:
            for key in held:
                self._scheduler.reinstate(key, ended=False)
            raise
        return [key for key, _ in await decided]

    # --- inside ---------------------------------------------------------------------------------------------

    def _decided(
        self, function_id: int, keys: Sequence[int], end: WaitingEnd, found: Sequence[tuple[int, int]] | None
    ) -> None:
        """Update scheduler and counters. ``found`` is None if the journal has refused the ends."""
        for key in keys:
            self._scheduler.reinstate(key, ended=found is not None)
        if not found:
            return
        self._backlog.remove(function_id, sum(size for _, size in found), rows=len(found))
        self._ends.note_code(end.outcome.code, len(found))
        for key, _ in found:
            self._ends.note_end(key, end.state)
        self.ends_stored([key for key, _ in found])
        self.ended(function_id, end, len(found))
        if end.deliver_to is not None:
            self.delivery_added()

    async def _end_running(self, selection: Selection) -> Sequence[int]:
        running = replace(selection, states=frozenset({State.RUNNING}), limit=MOST_RUNNING)
        found, _ = await self._records.list(running)
        ends = await asyncio.gather(*(self._cancel_running(record.key) for record in found))
        return [record.key for record, ended in zip(found, ends, strict=True) if ended]

    async def _cancel_running(self, key: int) -> bool:
        try:
            return await self._single.cancel(key)
        except Unavailable:
            return False  # the end is not on disk, or not yet


def _cancelled(now: float) -> Outcome:
    return Outcome(code=Code.CANCELLED, message=CANCELLED, ended_at=now)
