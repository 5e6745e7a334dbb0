"""Cancellation of waiting and running invocations, one at a time or many, and other early ends of waiting ones.

Many are ended in steps of limited size, between which others are accepted. All progress is on disk: a step ends
invocations, and the caller keeps the place that it has reached. A caller of an engine that takes over continues from
the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import OutcomeUnknown, Unavailable
from engine.model import Code, Outcome, State
from engine.model.clock import Clock
from engine.pipeline.settling import Ends
from engine.protocols import Executor, Journal, Place, Records, Selection, WaitingEnd
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

CANCEL_TIMEOUT = 10.0  #: seconds for which ``cancel`` waits until the end of a run is on disk
CANCELLED = "function invocation canceled"
BATCH = 100  #: invocations that one commit ends
REST = 0.05  #: longest pause in seconds after a commit
MOST_RUNNING = 500  #: running invocations that one step cancels


class CancelStep(Struct, frozen=True, kw_only=True):
    """Result of one step: the invocations that it ended."""

    keys: tuple[int, ...]
    reached: Place | None  #: ``after`` for the next step; None: this was the last step


class Cancellation:
    """Ends invocations as FAIL with code 4208 on request, and waiting ones with any end.

    A running invocation is ended by its executor, and the dispatcher settles it; ``requested`` says that the end is a
    cancellation. The end of waiting ones is a commit of its own. A cancellation that is not on disk when the engine
    stops did not happen: a standby that takes over runs the invocation.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        journal: Journal,
        records: Records,
        executor: Executor,
        backlog: Backlog,
        clock: Clock,
        ends: Ends,
        running: Container[int],
    ) -> None:
        self._scheduler, self._journal, self._records = scheduler, journal, records
        self._executor, self._backlog, self._clock = executor, backlog, clock
        self._ends, self._running = ends, running
        self.requested: set[int] = set()  #: keys of running invocations whose cancellation was requested

    async def cancel(self, key: int) -> bool:
        """End a waiting or running invocation as FAIL with code 4208 (cancelled).

        Returns True when this end is on disk, and False if the invocation had another end or does not exist. Raises
        NotStored if the disk refused the end. Raises OutcomeUnknown if the end may be on disk or is not there in time.
        After either error, the invocation may still run, or run again.
        """
        if key in self._running:
            return await self._cancel_running(key)
        record = await self._records.get(key)
        if record is None or record.state.final:
            return False
        if await self.end(record.function_id, [key], self._cancelled()):
            return True
        return key in self._running and await self._cancel_running(key)

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
                    batch = scan.keys[begin : begin + BATCH]
                    ended += await self.end(selection.function_id, batch, self._cancelled())
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

        The scheduler starts none of them until their end is on disk or refused.
        """
        for key in keys:
            self._scheduler.withhold(function_id, key)
        held = list(keys)
        try:
            await asyncio.sleep(0)  # lets slots start the entries that they were given
            for key in [key for key in held if key in self._running]:
                held.remove(key)
                self._scheduler.reinstate(key, ended=False)
            if not held:
                return ()
            decided = self._journal.end_all(
                held, end, then=lambda ended, stored: self._decided(function_id, held, end, ended if stored else None)
            )
        except BaseException:
            for key in held:
                self._scheduler.reinstate(key, ended=False)
            raise
        return [key for key, _ in await decided]

    # --- inside ---------------------------------------------------------------------------------------------

    def _decided(
        self, function_id: int, keys: Sequence[int], end: WaitingEnd, ended: Sequence[tuple[int, int]] | None
    ) -> None:
        """Update scheduler and counters. ``ended`` is None if the journal has refused the ends."""
        for key in keys:
            self._scheduler.reinstate(key, ended=ended is not None)
        if ended:
            self._backlog.remove(function_id, sum(size for _, size in ended), rows=len(ended))
            self._ends.note_waiting(function_id, end, [key for key, _ in ended])

    async def _end_running(self, selection: Selection) -> Sequence[int]:
        running = replace(selection, states=frozenset({State.RUNNING}), limit=MOST_RUNNING)
        records, _ = await self._records.list(running)
        ends = await asyncio.gather(*(self._try_running(record.key) for record in records))
        return [record.key for record, ended in zip(records, ends, strict=True) if ended]

    async def _try_running(self, key: int) -> bool:
        try:
            return await self.cancel(key)
        except Unavailable:
            return False  # the end is not on disk, or not yet

    async def _cancel_running(self, key: int) -> bool:
        self.requested.add(key)
        self._executor.cancel(key)  # no effect if the run has just ended
        await self._ends.wait(key, CANCEL_TIMEOUT)
        record = await self._records.get(key)
        if record is None or not record.state.final:
            raise OutcomeUnknown("the run was cancelled, but its end is not on disk yet; look at its state later")
        return record.code == Code.CANCELLED

    def _cancelled(self) -> WaitingEnd:
        outcome = Outcome(code=Code.CANCELLED, message=CANCELLED, ended_at=self._clock.now())
        return WaitingEnd(state=State.FAIL, outcome=outcome)
