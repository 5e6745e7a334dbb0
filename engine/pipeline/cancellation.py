"""Cancellation of waiting and running invocations."""

from __future__ import annotations

import asyncio
from collections.abc import Container

from engine.errors import OutcomeUnknown
from engine.model import Code, Outcome, State
from engine.model.clock import Clock
from engine.model.signal import Signal
from engine.pipeline.ends import Ends
from engine.protocols import Executor, Journal, Records
from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler

CANCEL_TIMEOUT = 10.0  #: seconds for which ``cancel`` waits until the end of a run is on disk
CANCELLED = "function invocation canceled"


class Cancellation:
    """Ends invocations as FAIL with code 4208 on request.

    A running invocation is ended by its executor, and the dispatcher settles it; ``requested`` says that the end is a
    cancellation. The end of a waiting one is a commit of its own. A cancellation that is not on disk when the engine
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
        self.waiting_cancelled: Signal[[int, int]] = Signal()
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
        if await self._cancel_waiting(record.function_id, key):
            return True
        return key in self._running and await self._cancel_running(key)

    async def _cancel_waiting(self, function_id: int, key: int) -> bool:
        """End a waiting invocation as FAIL. Return False if the invocation runs already or has ended."""
        self._scheduler.withhold(function_id, key)
        try:
            await asyncio.sleep(0)  # lets a slot start the entry if it was given to one
            if key in self._running:
                self._scheduler.reinstate(key, ended=False)
                return False
            outcome = Outcome(code=Code.CANCELLED, message=CANCELLED, ended_at=self._clock.now())
            decided = self._journal.cancel(key, outcome, then=self._decided)
        except BaseException:
            self._scheduler.reinstate(key, ended=False)
            raise
        return await decided is not None

    def _decided(self, key: int, found: tuple[int, int] | None, stored: bool) -> None:
        """Update scheduler and counters after a cancellation. Called when the journal has stored or refused its end."""
        self._scheduler.reinstate(key, ended=stored)
        if found is not None:
            self._backlog.remove(*found)
            self._ends.note_code(Code.CANCELLED)
            self._ends.note_end(key, State.FAIL)
            self.waiting_cancelled(found[0], 1)

    async def _cancel_running(self, key: int) -> bool:
        self.requested.add(key)
        self._executor.cancel(key)  # no effect if the run has just ended
        await self._ends.wait(key, CANCEL_TIMEOUT)
        record = await self._records.get(key)
        if record is None or not record.state.final:
            raise OutcomeUnknown("the run was cancelled, but its end is not on disk yet; look at its state later")
        return record.code == Code.CANCELLED
