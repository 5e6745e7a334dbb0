"""Deterministic event loop: simulated time, no threads, no sockets, and an order of events that a seed decides.

Time stands still while callbacks run, and jumps to the next timer when none is left. Timers that are due in the same
millisecond stand for events from outside, such as completed writes, ends of runs and requests of clients. Their order
is drawn at random. Callbacks of ``call_soon`` run in the order of their calls, because asyncio promises this order and
the engine relies on it.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from itertools import count
from random import Random
from typing import Any

#: Seconds within which timers count as simultaneous.
TICK = 0.001


class Crash(BaseException):
    """End of the simulated process between two callbacks. Nothing of the process runs after it."""


class NothingToRun(Exception):
    """Nothing can happen any more: no callback is ready, and no timer is set."""


class SimulatedTask(asyncio.Task[Any]):
    """Task with a hash that does not depend on its address, so that sets of tasks have a reproducible order."""

    def __init__(self, number: int, coroutine: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__


class SimulatedLoop(asyncio.BaseEventLoop):
    """Event loop of one simulated process, from its start at ``now`` to its end.

    ``on_idle`` is called whenever the process would sleep, before the time moves on.
    """

    def __init__(self, now: float, random: Random) -> None:
        super().__init__()
        self._now, self._random = now, random
        self._ready: Any
        self._timer_cancelled_count: int
        self._scheduled: list[asyncio.TimerHandle]
        self.on_idle: Callable[[], None] = lambda: None
        self.steps = 0  #: callbacks run so far
        self.crash_at: int | None = None  #: number of callbacks after which the process crashes
        self.tasks: list[asyncio.Task[Any]] = []
        self._numbers = count()
        self.errors: list[str] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(self._note_error)

    def time(self) -> float:
        return self._now

    def run(self, main: Any) -> None:
        """Run ``main`` to its end. Raises Crash at the planned crash, and any error of ``main``."""
        task = self.create_task(main)
        task.add_done_callback(lambda _: self.stop())
        self.run_forever()
        task.result()

    def crash_soon(self, steps: int) -> None:
        """Crash after a number of further callbacks, or earlier if an earlier crash is planned."""
        self.crash_at = min(self.crash_at or sys.maxsize, self.steps + steps)

    def abandon(self) -> None:
        """End all coroutines of a process that has crashed, and remove its objects from memory.

        Clean-up code of the coroutines may run, but must have no effect: the caller has stopped the storage before.
        """
        with _unheard(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            events._set_running_loop(self)
            try:
                for task in self.tasks:
                    if not task.done():
                        task._log_destroy_pending = False  # type: ignore[attr-defined]
                        _close(task.get_coro())
                self.tasks.clear()
                self._ready.clear()
                self._scheduled.clear()
                gc.collect()
                gc.freeze()  # only records of the simulation are left, which the next collection need not visit
            finally:
                events._set_running_loop(None)
                self.close()

    # --- parts of BaseEventLoop -----------------------------------------------------------------------------

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            self.on_idle()
            while scheduled and scheduled[0].cancelled():
                heapq.heappop(scheduled)
            if not scheduled:
                raise NothingToRun
            self._now = max(self._now, scheduled[0].when())
        self._add_due_timers()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
                self.steps += 1
                if self.steps == self.crash_at:
                    raise Crash

    def _add_due_timers(self) -> None:
        due: list[asyncio.TimerHandle] = []
        scheduled, limit = self._scheduled, self._now + TICK
        while scheduled and scheduled[0].when() <= limit:
            handle = heapq.heappop(scheduled)
            if not handle.cancelled():
                due.append(handle)
        if len(due) > 1:
            self._random.shuffle(due)
        self._ready.extend(due)
        if self._timer_cancelled_count > 1000:
            self._timer_cancelled_count = 0
            scheduled[:] = [handle for handle in scheduled if not handle.cancelled()]
            heapq.heapify(scheduled)

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _asyncgen_firstiter_hook(self, agen: Any) -> None:
        pass

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        pass

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> Any:
        task = SimulatedTask(next(self._numbers), coro, loop=loop, context=context)
        self.tasks.append(task)
        if len(self.tasks) > 4096:
            self.tasks = [other for other in self.tasks if not other.done()]
        return task

    def _note_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context['message']}: {error!r}")


@contextmanager
def _unheard() -> Iterator[None]:
    """Ignore errors in code that ends because its process has ended."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
    finally:
        sys.unraisablehook = hook


def _close(coroutine: Any) -> None:
    with suppress(BaseException):  # clean-up that awaits, or that needs the loop: the process is dead
        coroutine.close()
