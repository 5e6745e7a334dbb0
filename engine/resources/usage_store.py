"""Usage on disk: samples of the engine by minute, and invocations and MiB-seconds of each project by month.

A crash loses at most the last minute with events. A minute is written with the first event of a later one, by one
transaction that also deletes the samples that are too old, and one for each project that was used. So there is at most
one round of writes in a minute, and none while nothing happens.
"""

from __future__ import annotations

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus

from engine.errors import Unavailable
from engine.metrics.samples import Tally
from engine.metrics.usage import MINUTES, Usage
from engine.protocols import ResourceStore, Store, StoredResource
from engine.protocols.catalog import decode_resource
from engine.resources.repository import project_owner

SAMPLES = "functiond.samples"  #: store of samples; no table of a plugin has this name
TABLE = "minutes"
MOST = 2 * MINUTES  #: samples read at the start
KIND = "usage"
_OWNER = project_owner("")

log = structlog.get_logger("functiond.usage")


class UsageStore:
    """Writer of usage to disk. Call ``load`` once, before the first event."""

    def __init__(self, usage: Usage, samples: Store, months: ResourceStore) -> None:
        self._usage, self._samples, self._months = usage, samples, months
        self._changed = anyio.Event()
        self._written: dict[tuple[str, str], bytes] = {}  #: stored bodies of months, by project and date

    async def load(self) -> None:
        samples = await self._samples.scan(TABLE, newest=True, limit=MOST)
        rows = {(row.owner.removeprefix(_OWNER), row.id): row for row in await self._months.load(KIND)}
        self._written = {key: row.body for key, row in rows.items()}
        self._usage.restore(
            {int(key): body for key, body in samples if key.isdecimal()},
            {key: decode_resource(row, Tally) for key, row in rows.items()},
        )

    def note_change(self) -> None:
        """Schedule a write, because a minute is over."""
        self._changed.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Write each minute when it is over, and the current one when cancelled."""
        task_status.started()
        try:
            while True:
                await self._changed.wait()
                self._changed = anyio.Event()
                await self._save()
        finally:
            with anyio.CancelScope(shield=True):
                self._usage.end_minute()
                await self._save()

    async def _save(self) -> None:
        try:
            await self._save_samples()
            await self._save_months()
        except Unavailable as problem:  # written after the next minute with events, or at the end
            log.warning("usage not stored", problem=str(problem))

    async def _save_samples(self) -> None:
        unsaved = self._usage.unsaved()
        if unsaved:
            put = {_key(minute): body for minute, body in unsaved.items() if body is not None}
            await self._samples.write(TABLE, put, [_key(minute) for minute, body in unsaved.items() if body is None])
            self._usage.note_saved(unsaved)

    async def _save_months(self) -> None:
        months = {
            key: msgspec.json.encode({"count": tally.count, "work": tally.work})
            for key, tally in self._usage.all_months().items()
        }
        for key in self._written.keys() - months.keys():
            await self._months.delete(KIND, project_owner(key[0]), key[1])
            del self._written[key]
        for key, body in months.items():
            if self._written.get(key) != body:
                await self._months.put(StoredResource(kind=KIND, owner=project_owner(key[0]), id=key[1], body=body))
                self._written[key] = body


def _key(minute: int) -> str:
    return f"{minute:010}"
