"""Double of the catalog store: functions and their asynchronous settings in memory."""

from __future__ import annotations

from collections.abc import Sequence

from engine.model import AsyncSettings, Function
from engine.protocols import StoredResource
from engine.testing.resources import MemoryResourceStore
from engine.testing.writes import MemoryWrites


class MemoryCatalogStore:
    """Catalog store in memory. ``resources`` are deleted together with their functions and versions."""

    def __init__(self, resources: MemoryResourceStore | None = None, writes: MemoryWrites | None = None) -> None:
        self._resources, self._writes = resources or MemoryResourceStore(), writes or MemoryWrites()
        self.functions: dict[tuple[int, str], Function] = {}
        self.settings: dict[tuple[int, str], AsyncSettings] = {}
        self._last = 0

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        self._writes.check()
        return list(self.functions.values()), dict(self.settings)

    async def new_function_id(self) -> int:
        self._writes.check()
        self._last += 1
        return self._last

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        self._writes.check()
        for function in functions:
            self.functions[function.function_id, function.version] = function
        for resource in resources:
            await self._resources.put(resource)

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        self._writes.check()
        self.functions[version.function_id, version.version] = version
        if settings is not None:
            self.settings[version.function_id, version.version] = settings

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        self._writes.check()
        self.functions.pop((function_id, version), None)
        self.settings.pop((function_id, version), None)
        for resource in bound:
            await self._resources.delete(resource.kind, resource.owner, resource.id)

    async def delete_function(self, function_id: int) -> None:
        self._writes.check()
        self.functions = {key: value for key, value in self.functions.items() if key[0] != function_id}
        self.settings = {key: value for key, value in self.settings.items() if key[0] != function_id}
        self._resources.forget(f"function:{function_id}")

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        self._writes.check()
        self.settings[function_id, version] = settings

    async def delete_settings(self, function_id: int, version: str) -> None:
        self._writes.check()
        self.settings.pop((function_id, version), None)
