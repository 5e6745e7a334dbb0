"""What waits for a function that is gone becomes DISCARD at once, in steps that hold up nobody.

    the function is gone ──▶ the scheduler lets go of it ──▶ its rows end, some at a time ──▶ none is left

From then on the scheduler hands out none of its invocations, so that a row has one end. What was on its way to disk
or to its due time comes later and starts another round. Its asynchronous settings are gone too, so nobody is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import Unavailable
from engine.model import Code, Outcome
from engine.model.clock import Clock
from engine.protocols import Journal
from engine.scheduling.backlog import Backlog
from engine.scheduling.function_queue import BEGINNING
from engine.scheduling.scheduler import Scheduler

log = structlog.get_logger("functiond.discarder")

STEP = 200  #: rows that one commit ends at most
RETRY_DELAY = 1.0  #: seconds before the disk is asked again
GONE = "the function was deleted"


class Discarder:
    """``on_end`` is given the keys of each step, once they are on disk."""

    def __init__(
        self,
        journal: Journal,
        scheduler: Scheduler,
        backlog: Backlog,
        clock: Clock,
        on_end: Callable[[Sequence[int]], None],
    ) -> None:
        self._journal, self._scheduler, self._backlog, self._clock = journal, scheduler, backlog, clock
        self._on_end = on_end
        self._gone: dict[int, None] = {}  #: in the order in which they went
        self._work = anyio.Event()
        scheduler.on_closed = self._look_at

    def discard(self, function_id: int) -> None:
        """The function is gone for good. Returns at once."""
        self._scheduler.close(function_id)
        self._look_at(function_id)

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            while self._gone:
                function_id = next(iter(self._gone))
                del self._gone[function_id]
                await self._end_all(function_id)
            self._work = anyio.Event()
            await self._work.wait()

    def _look_at(self, function_id: int) -> None:
        self._gone[function_id] = None
        self._work.set()

    async def _end_all(self, function_id: int) -> None:
        ended, after = 0, BEGINNING
        while True:
            # What was handed to a slot before the function went arrives there now, and has its own end.
            await anyio.lowlevel.checkpoint()
            now = self._clock.now()
            outcome = Outcome(code=Code.FUNCTION_MISSING, message=GONE, started_at=now, ended_at=now)
            try:
                step = await self._journal.discard(function_id, after, STEP, outcome)
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
                continue
            if step.keys:
                self._backlog.remove(function_id, step.size, rows=len(step.keys))
                self._on_end(step.keys)
                ended += len(step.keys)
            if step.reached is None:
                break
            after = step.reached
        if ended:
            log.info("waiting invocations discarded", invocations=ended, function_id=function_id)
