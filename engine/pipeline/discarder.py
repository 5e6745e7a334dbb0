"""Discarder: ends the waiting invocations of a deleted function as DISCARD, in small steps.

    function deleted ──▶ scheduler closes it ──▶ its invocations end, some in each commit ──▶ none is left

The scheduler starts no invocations of a closed function, so that no invocation ends twice. Invocations that are stored
after the deletion, or become due after it, reach the scheduler later and start another round. The function's
asynchronous settings are deleted too, so that no destination gets these outcomes.
"""

from __future__ import annotations

import anyio
import anyio.lowlevel
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import PageDamaged, Unavailable
from engine.model import Code, Outcome, State
from engine.model.clock import Clock
from engine.pipeline.bulk_cancellation import BATCH, BulkCancellation
from engine.protocols import FIRST, Place, Records, Selection, WaitingEnd
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.discarder")

RETRY_DELAY = 1.0  #: seconds between tries while the journal is unavailable
MESSAGE = "the function was deleted"


class Discarder:
    """Service that discards waiting invocations of deleted functions."""

    def __init__(self, records: Records, scheduler: Scheduler, bulk: BulkCancellation, clock: Clock) -> None:
        self._records, self._scheduler, self._bulk, self._clock = records, scheduler, bulk, clock
        self._deleted: dict[int, None] = {}  #: functions to process, in order of their deletion
        self._work = anyio.Event()

    def discard(self, function_id: int) -> None:
        """Start no more asynchronous invocations of a deleted function. Discard waiting ones in the background."""
        self._scheduler.close(function_id)
        self.enqueue(function_id)

    def enqueue(self, function_id: int) -> None:
        """Discard waiting invocations of a function that the scheduler has closed, in the background."""
        self._deleted[function_id] = None
        self._work.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            while self._deleted:
                function_id = next(iter(self._deleted))
                del self._deleted[function_id]
                await self._end_all(function_id)
            self._work = anyio.Event()
            await self._work.wait()

    async def _end_all(self, function_id: int) -> None:
        ended, selection = 0, Selection(function_id=function_id)
        after: Place | None = FIRST
        while after is not None:
            # Lets slots start the invocations that they were given before the deletion, so that these are skipped.
            await anyio.lowlevel.checkpoint()
            now = self._clock.now()
            outcome = Outcome(code=Code.FUNCTION_MISSING, message=MESSAGE, started_at=now, ended_at=now)
            try:
                scan = await self._records.waiting(selection, after, BATCH)
                if scan.keys:
                    end = WaitingEnd(state=State.DISCARD, outcome=outcome)
                    ended += len(await self._bulk.end(function_id, scan.keys, end))
                after = scan.reached
            except PageDamaged as problem:
                log.error("waiting invocations not discarded", function_id=function_id, problem=str(problem))
                return
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
        if ended:
            log.info("waiting invocations discarded", invocations=ended, function_id=function_id)
