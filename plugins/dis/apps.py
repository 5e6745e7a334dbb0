"""Apps, which are named consumers of streams, and their checkpoints, for streams that the engine serves itself."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import anyio
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine import Store
from plugins._shared.rows import decode_row, rows_of
from plugins.dis.problems import APP_EXISTS, NO_APP, DisProblem

TABLE = "apps"


class Checkpoint(Struct, frozen=True, kw_only=True):
    sequence_number: str
    metadata: str = ""


class App(Struct, frozen=True, kw_only=True):
    name: str
    app_id: str
    created_at: float
    checkpoints: dict[str, dict[str, Checkpoint]] = {}  #: keyed by stream id and partition id


class Apps:
    """Stored apps of all projects.

    Methods raise DisProblem if the app does not exist; ``create`` raises DisProblem if it exists already.
    """

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self._store, self._now = store, now
        self._changing = anyio.Lock()

    async def names(self, project: str, after: str) -> list[str]:
        rows = rows_of(self._store, TABLE, after=f"{project}/{after}", until=f"{project}0")
        return [key.partition("/")[2] async for key, _ in rows]

    async def find(self, project: str, name: str) -> App:
        value = await self._store.get(TABLE, f"{project}/{name}")
        if value is None:
            raise DisProblem(NO_APP, f"App does not exist. [{name}]")
        return decode_row(TABLE, f"{project}/{name}", value, App)

    async def create(self, project: str, name: str) -> None:
        async with self._changing:
            if await self._store.get(TABLE, f"{project}/{name}") is not None:
                raise DisProblem(APP_EXISTS, f"App already exists. [{name}]")
            await self._save(project, App(name=name, app_id=uuid.uuid4().hex[:20], created_at=self._now()))

    async def delete(self, project: str, name: str) -> None:
        async with self._changing:
            await self.find(project, name)
            await self._store.write(TABLE, delete=[f"{project}/{name}"])

    async def commit(self, project: str, name: str, stream_id: str, part: str, checkpoint: Checkpoint) -> None:
        async with self._changing:
            app = await self.find(project, name)
            of_stream = {**app.checkpoints.get(stream_id, {}), part: checkpoint}
            await self._save(project, replace(app, checkpoints={**app.checkpoints, stream_id: of_stream}))

    async def forget(self, project: str, name: str, stream_id: str, part: str) -> None:
        """Delete an app's checkpoint in a partition of a stream, or in all its partitions if ``part`` is empty."""
        async with self._changing:
            app = await self.find(project, name)
            rest = {
                partition: kept
                for partition, kept in app.checkpoints.get(stream_id, {}).items()
                if part and partition != part
            }
            others = {stream: kept for stream, kept in app.checkpoints.items() if stream != stream_id}
            await self._save(project, replace(app, checkpoints={**others, stream_id: rest} if rest else others))

    async def _save(self, project: str, app: App) -> None:
        await self._store.write(TABLE, {f"{project}/{app.name}": msgspec.json.encode(app)})
