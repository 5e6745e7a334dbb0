"""Delay corrector: lets delayed invocations run in time after the clock was far ahead and is right again.

An invocation that was accepted with a delay, or failed, while the clock was years ahead is due in years. After a start,
and after the clock was set, such invocations therefore get new due times. This happens after ``WAIT`` seconds without a
further step, because due times also look far ahead to a clock that is behind for a while.
"""

from __future__ import annotations

import asyncio

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import PageDamaged, Unavailable
from engine.model.clock import Clock
from engine.model.identity import EARLIEST
from engine.model.signal import Signal
from engine.protocols import Journal

log = structlog.get_logger("functiond.clock")

WAIT = 600.0  #: seconds
STEP = 256  #: largest number of rows in one commit
RETRY_DELAY = 1.0  #: seconds between tries while the journal is unavailable


class DelayCorrector:
    """Service that corrects due times. ``corrected(next_due)`` announces the earliest due time after a correction."""

    def __init__(self, journal: Journal, clock: Clock, *, wait: float = WAIT) -> None:
        self.corrected: Signal[[float | None]] = Signal()
        self._journal, self._clock, self._wait = journal, clock, wait
        self._noticed = asyncio.Event()
        self._noticed.set()  # the clock may have been set while no engine ran

    def note_step(self, seconds: float) -> None:
        """Look for wrong due times in a while, because the clock was set."""
        self._noticed.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            await self._noticed.wait()
            self._noticed.clear()
            with anyio.move_on_after(self._wait):
                await self._noticed.wait()
                continue
            if self._clock.now() >= EARLIEST:
                await self._correct(self._clock.now() - self._wait)

    async def _correct(self, since: float) -> None:
        changed, more = 0, True
        while more:
            try:
                rows, next_due = await self._journal.correct_due(self._clock.now(), since, STEP)
            except PageDamaged as problem:
                log.error("due times not corrected", problem=str(problem))
                return
            except Unavailable:
                await anyio.sleep(RETRY_DELAY)
                continue
            changed, more = changed + rows, rows > 0
            if rows:
                self.corrected(next_due)
        if changed:
            log.warning(
                "delayed invocations were due by a clock far ahead, and are due sooner now", invocations=changed
            )
