"""Pruner: drops finished invocations that are too old, too many or too large, in short steps between other writes."""

from __future__ import annotations

import asyncio

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import Unavailable
from engine.executors.logs import LogFiles
from engine.model.clock import Clock
from engine.protocols import Purged, Records

log = structlog.get_logger("functiond.pruner")

#: Seconds between two steps of a round, in favour of other writes. No pause while too many rows or bytes are stored.
PAUSE = 0.02
#: Least seconds between two rounds; the second value applies after a round that dropped invocations.
REST, SHORT_REST = 60.0, 1.0
LONGEST_WAIT = 3600.0  #: seconds until the clock is read again, since it may be set


class Retention(Struct, frozen=True, kw_only=True):
    age: float  #: seconds
    rows: int
    size: int  #: bytes


class Pruner:
    def __init__(self, *, records: Records, logs: LogFiles, clock: Clock, retention: Retention) -> None:
        self._records, self._logs, self._clock, self._retention = records, logs, clock, retention
        self._ended, self._urgent = asyncio.Event(), asyncio.Event()
        self._rest = REST
        self.purged = 0

    def note_end(self) -> None:
        """Schedule a round of pruning, because invocations have ended and the limits may be exceeded."""
        self._ended.set()

    def run_now(self) -> None:
        """Start a round of pruning now: disk space is low, or data expires again. A round that runs makes no pauses."""
        self._urgent.set()
        self._ended.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        task_status.started()
        while True:
            self._ended.clear()
            self._urgent.clear()
            next_due = await self._round()
            with anyio.move_on_after(self._rest):
                await self._urgent.wait()
            wait = None if next_due is None else min(max(0.0, next_due - self._clock.expiry.now()), LONGEST_WAIT)
            with anyio.move_on_after(wait):
                await self._ended.wait()

    async def _round(self) -> float | None:
        """Run steps until no finished invocation has to be dropped.

        Return the time at which the next round is due, or None if it is not known.
        """
        due: list[float] = []
        before = self._clock.expiry.now() - self._retention.age
        await anyio.to_thread.run_sync(self._logs.expire_instances, before)
        self._rest = REST
        while True:
            try:
                purged = await self._step()
            except Unavailable:
                return self._clock.expiry.now() + REST
            if purged.next_due is not None:
                due.append(purged.next_due)
            if purged.request_ids:
                self._rest = SHORT_REST
            if not purged.more:
                return min(due, default=None)
            await anyio.sleep(0 if purged.over or self._urgent.is_set() else PAUSE)

    async def _step(self) -> Purged:
        limits, expiry = self._retention, self._clock.expiry
        purged = await self._records.purge(
            expiry.now(), age=limits.age, rows=limits.rows, size=limits.size, ahead=expiry.ahead
        )
        if purged.request_ids:
            self.purged += len(purged.request_ids)
            invocations = zip(purged.functions, purged.request_ids, strict=True)
            await anyio.to_thread.run_sync(self._logs.remove, invocations, purged.attempts)
        return purged
