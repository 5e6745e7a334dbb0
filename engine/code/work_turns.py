"""Turns of threads that work for a long time, such as those that unpack packages."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import anyio.from_thread
import anyio.to_thread

TURN = 0.02  #: seconds after which work gives way to other work
THREADS = 8  #: works that have begun; each may hold the directory of a package, up to 40 MB
T = TypeVar("T")


class WorkTurns:
    """Turns of threads: one works at a time, in the order in which they asked."""

    def __init__(self) -> None:
        self._threads, self._turn, self._end = anyio.CapacityLimiter(THREADS), anyio.Semaphore(1), 0.0

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of ``work``, which blocks a thread."""
        return await anyio.to_thread.run_sync(lambda: self._run(work), limiter=self._threads)

    def give_way(self) -> None:
        """Let other work have its turn if this one has lasted long enough. Work calls this between its steps."""
        if time.monotonic() > self._end:
            anyio.from_thread.run_sync(self._turn.release)
            self._begin()

    def _run(self, work: Callable[[], T]) -> T:
        self._begin()
        try:
            return work()
        finally:
            anyio.from_thread.run_sync(self._turn.release)

    def _begin(self) -> None:
        anyio.from_thread.run(self._acquire)
        self._end = time.monotonic() + TURN

    async def _acquire(self) -> None:
        # Work that has begun ends, even if its caller is cancelled. Without the shield, anyio 4.16 can wait here for a
        # cancellation that it has stopped to deliver, and never returns.
        with anyio.CancelScope(shield=True):
            await self._turn.acquire()
