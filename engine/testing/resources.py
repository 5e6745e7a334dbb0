"""Double of the resource store: resources of functions and projects in memory."""

from __future__ import annotations

from collections.abc import Sequence

from engine.protocols import StoredResource
from engine.testing.writes import MemoryWrites


class MemoryResourceStore:
    """Resource store in memory. ``forget`` deletes all resources of one owner, such as those of a deleted function."""

    def __init__(self, writes: MemoryWrites | None = None) -> None:
        self._writes = writes or MemoryWrites()
        self._rows: dict[tuple[str, str, str], StoredResource] = {}

    async def load(self, kind: str) -> Sequence[StoredResource]:
        self._writes.check()
        return [self._rows[key] for key in sorted(self._rows) if key[0] == kind]

    async def put(self, resource: StoredResource) -> None:
        self._writes.check()
        self._rows[resource.kind, resource.owner, resource.id] = resource

    async def delete(self, kind: str, owner: str, id: str) -> None:
        self._writes.check()
        self._rows.pop((kind, owner, id), None)

    def find(self, kind: str, id: str) -> StoredResource | None:
        return next((row for key, row in self._rows.items() if (key[0], key[2]) == (kind, id)), None)

    def forget(self, owner: str) -> None:
        self._rows = {key: row for key, row in self._rows.items() if key[1] != owner}
