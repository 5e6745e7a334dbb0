"""Monthly usage (invocations, MiB-seconds) of each project, on disk. A crash loses at most the last two minutes."""

from __future__ import annotations

import anyio
import msgspec
import structlog
from anyio import TASK_STATUS_IGNORED
from anyio.abc import TaskStatus
from msgspec import Struct

from engine.errors import Unavailable
from engine.metrics.usage import Tally, Usage
from engine.protocols import ResourceStore, StoredResource
from engine.protocols.catalog import decode_resource
from engine.resources.repository import project_owner

KIND = "usage"
PAUSE = 60.0  #: seconds from a use to its write, so that the minute of the use has ended
_OWNER = project_owner("")

log = structlog.get_logger("functiond.usage")


class _Used(Struct, frozen=True, kw_only=True):
    count: int
    work: float


class UsageStore:
    """Writer of monthly usage to disk. Call ``load`` once, before the first invocation."""

    def __init__(self, usage: Usage, store: ResourceStore, *, pause: float = PAUSE) -> None:
        self._usage, self._store, self._pause = usage, store, pause
        self._used = anyio.Event()
        self._written: dict[tuple[str, str], bytes] = {}  #: stored bodies by project and date

    async def load(self) -> None:
        rows = await self._store.load(KIND)
        keys = {(row.owner.removeprefix(_OWNER), row.id): row for row in rows}
        self._written = {key: row.body for key, row in keys.items()}
        self._usage.restore({key: _tally(row) for key, row in keys.items()})

    def note_use(self) -> None:
        """Schedule a write, because the usage of a month has changed."""
        self._used.set()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Write usage one minute after it occurs, and once more when cancelled. Sleeps while there is no usage."""
        task_status.started()
        try:
            while True:
                await self._used.wait()
                self._used = anyio.Event()
                await anyio.sleep(self._pause)
                await self._save()
        finally:
            with anyio.CancelScope(shield=True):
                await self._save()

    async def _save(self) -> None:
        months = {key: _body(tally) for key, tally in self._usage.all_months().items()}
        try:
            for key in self._written.keys() - months.keys():
                await self._store.delete(KIND, project_owner(key[0]), key[1])
                del self._written[key]
            for key, body in months.items():
                if self._written.get(key) != body:
                    await self._store.put(StoredResource(kind=KIND, owner=project_owner(key[0]), id=key[1], body=body))
                    self._written[key] = body
        except Unavailable as problem:  # written after the next use, or at the end
            log.warning("usage not stored", problem=str(problem))


def _body(tally: Tally) -> bytes:
    return msgspec.json.encode(_Used(count=tally.count, work=tally.work))


def _tally(row: StoredResource) -> Tally:
    used = decode_resource(row, _Used)
    return Tally(count=used.count, work=used.work)
