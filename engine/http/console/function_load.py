"""Load of a function at the moment: invocations that wait and run, and instances."""

from __future__ import annotations

from collections.abc import Callable, Collection

from msgspec import Struct

from engine.scheduling.backlog import Backlog
from engine.scheduling.scheduler import Scheduler


class Load(Struct, frozen=True, kw_only=True):
    waiting: int  #: accepted invocations that do not run
    running: int  #: attempts, synchronous calls included
    instances: int


class FunctionLoad:
    """Load of each function. ``instances`` returns the number of live instances of functions."""

    def __init__(self, backlog: Backlog, scheduler: Scheduler, instances: Callable[[Collection[int]], int]) -> None:
        self._backlog, self._scheduler, self._instances = backlog, scheduler, instances

    def of(self, function_id: int) -> Load:
        running = self._scheduler.running(function_id)
        return Load(
            waiting=max(0, self._backlog.of(function_id)[0] - running),
            running=running,
            instances=self._instances([function_id]),
        )
