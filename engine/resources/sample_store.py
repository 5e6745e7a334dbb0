"""Samples of the engine by minute, on disk. A crash loses at most the last minute with events.

The sample of a minute is written with the first event of a later one, in one transaction that also deletes the samples
that are too old. So there is at most one write in a minute, and none while nothing happens.
"""

from __future__ import annotations

import anyio
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import Unavailable
from engine.metrics.samples import MINUTES, Samples
from engine.protocols import Store

STORE = "functiond.samples"  #: no table of a plugin has this name
TABLE = "minutes"
MOST = 2 * MINUTES  #: rows read at the start

log = structlog.get_logger("functiond.samples")


class SampleStore:
    """Writer of samples to disk. Call ``load`` once, before the first event."""

    def __init__(self, samples: Samples, store: Store) -> None:
        self._samples, self._store = samples, store
        self._changed = anyio.Event()

    async def load(self) -> None:
        rows = await self._store.scan(TABLE, newest=True, limit=MOST)
        self._samples.restore({int(key): body for key, body in rows if key.isdecimal()})

    def note_change(self) -> None:
        """Schedule a write, because a minute is over."""
        self._changed.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Write each sample when its minute is over, and the current one when cancelled."""
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await self._save()
        finally:
            with anyio.CancelScope(shield=True):
                self._samples.end_minute()
                await self._save()

    async def _save(self) -> None:
        unsaved = self._samples.unsaved()
        if not unsaved:
            return
        put = {_key(minute): body for minute, body in unsaved.items() if body is not None}
        try:
            await self._store.write(TABLE, put, [_key(minute) for minute, body in unsaved.items() if body is None])
        except Unavailable as problem:  # written with the next sample, or at the end
            log.warning("samples not stored", problem=str(problem))
        else:
            self._samples.note_saved(unsaved)


def _key(minute: int) -> str:
    return f"{minute:010}"
