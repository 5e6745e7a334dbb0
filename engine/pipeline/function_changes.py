"""Changes of functions, passed to the parts that hold their work: scheduler, discarder and pool."""

from __future__ import annotations

import anyio
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskGroup, TaskStatus

from engine.executors.pool import Pool
from engine.functions.catalog import Catalog
from engine.functions.controls import FunctionControls
from engine.functions.function_rules import per_key, weight
from engine.model import Function
from engine.pipeline.discarder import Discarder
from engine.protocols import Journal
from engine.scheduling.scheduler import Scheduler


class FunctionChanges:
    """Service that applies changes of functions. Instances are retired only while ``run`` runs."""

    def __init__(
        self,
        catalog: Catalog,
        controls: FunctionControls,
        scheduler: Scheduler,
        discarder: Discarder,
        pool: Pool,
        journal: Journal,
    ) -> None:
        self._catalog, self._controls, self._journal = catalog, controls, journal
        self._scheduler, self._discarder, self._pool = scheduler, discarder, pool
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Retire instances of earlier revisions in the background until cancelled."""
        try:
            async with anyio.create_task_group() as self._tasks:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def apply(self, function_id: int, latest: Function | None) -> None:
        """Configure the queue of a function, discard its work if it was deleted, and retire outdated instances.

        ``latest`` is the function's version ``latest``; None if the function was deleted.
        """
        self.configure(function_id, latest)
        if self._tasks is not None:  # otherwise the engine ends, and all instances with it
            current = {version.revision for version in self._catalog.versions(function_id)}
            self._tasks.start_soon(self._pool.retire, function_id, current)

    def configure(self, function_id: int, latest: Function | None) -> None:
        """Configure the queue of a function, or discard its work. Without ``apply``, it has no instances yet."""
        self._journal.per_key.pop(function_id, None)
        if latest is None:  # deleted; waiting synchronous calls are still dispatched, and get an error
            self._scheduler.configure(function_id, weight=1.0, limit=-1, memory=0)
            self._discarder.discard(function_id)
        else:
            self._scheduler.configure(
                function_id,
                weight=weight(latest),
                limit=max(-1, latest.max_instances * latest.concurrent_num),
                memory=latest.memory_size,
                concurrent_requests=latest.concurrent_num,
            )
            if (most := per_key(latest)) > 1:
                self._journal.per_key[function_id] = most
            self.apply_controls(function_id)

    def apply_controls(self, function_id: int) -> None:
        """Pause a function, or end its pause, and set its rate, as its controls say."""
        controls = self._controls.of(function_id)
        self._scheduler.set_rate(function_id, controls.rate, controls.burst)
        if self._scheduler.set_pause(function_id, controls.pause_reason if controls.paused else None):
            self._discarder.note_pause(function_id)
