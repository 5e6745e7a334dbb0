"""Stores of the double: functions, resources of functions and projects, and the tables of one plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from engine.model import AsyncSettings, Function
from engine.protocols import StoredResource
from tests.doubles.tables import MemoryTables
from tests.doubles.writes import MemoryWrites


class MemoryResourceStore:
    def __init__(self, writes: MemoryWrites | None = None, tables: MemoryTables | None = None) -> None:
        self._writes, self.tables = writes or MemoryWrites(), tables or MemoryTables()

    async def load(self, kind: str) -> Sequence[StoredResource]:
        self._writes.check()
        return [resource for key, resource in sorted(self.tables.resources.items()) if key[0] == kind]

    async def put(self, resource: StoredResource) -> None:
        key = resource.kind, resource.owner, resource.id
        await self._writes.call(lambda: self.tables.resources.update({key: resource}))

    async def delete(self, kind: str, owner: str, id: str) -> None:
        await self._writes.call(lambda: self.tables.delete_resources({(kind, owner, id)}.__contains__))


class MemoryCatalogStore:
    """Catalog store in memory. ``resources`` are deleted together with their functions and versions."""

    def __init__(self, resources: MemoryResourceStore | None = None, writes: MemoryWrites | None = None) -> None:
        self._writes, self._tables = writes or MemoryWrites(), (resources or MemoryResourceStore()).tables

    @property
    def functions(self) -> Mapping[tuple[int, str], Function]:
        return self._tables.functions

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        self._writes.check()
        return list(self._tables.functions.values()), dict(self._tables.settings)

    async def new_function_id(self) -> int:
        self._writes.check()
        self._tables.last_function_id += 1
        return self._tables.last_function_id

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        new = {(function.function_id, function.version): function for function in functions}
        others = {(resource.kind, resource.owner, resource.id): resource for resource in resources}

        def apply() -> None:
            self._tables.functions.update(new)
            self._tables.resources.update(others)

        await self._writes.call(apply)

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        key = version.function_id, version.version

        def apply() -> None:
            self._tables.functions[key] = version
            if settings is not None:
                self._tables.settings[key] = settings

        await self._writes.call(apply)

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        keys = {(resource.kind, resource.owner, resource.id) for resource in bound}

        def apply() -> None:
            self._tables.delete_versions(lambda key: key == (function_id, version))
            self._tables.delete_resources(keys.__contains__)

        await self._writes.call(apply)

    async def delete_function(self, function_id: int) -> None:
        def apply() -> None:
            self._tables.delete_versions(lambda key: key[0] == function_id)
            self._tables.delete_resources(lambda key: key[1] == f"function:{function_id}")

        await self._writes.call(apply)

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        await self._writes.call(lambda: self._tables.settings.update({(function_id, version): settings}))

    async def delete_settings(self, function_id: int, version: str) -> None:
        await self._writes.call(lambda: self._tables.settings.pop((function_id, version), None))


class MemoryStore:
    def __init__(
        self, writes: MemoryWrites | None = None, tables: MemoryTables | None = None, plugin: str = "plugin"
    ) -> None:
        self._writes, self._plugin = writes or MemoryWrites(), plugin
        self._tables = tables or MemoryTables()

    async def get(self, table: str, key: str) -> bytes | None:
        return await self._writes.call(lambda: self._rows(table).get(key))

    async def scan(
        self,
        table: str,
        *,
        after: str = "",
        until: str = "",
        limit: int = 1000,
        newest: bool = False,
    ) -> Sequence[tuple[str, bytes]]:
        def read() -> Sequence[tuple[str, bytes]]:
            rows = self._rows(table)
            keys = sorted((key for key in rows if key > after and (not until or key < until)), reverse=newest)
            return [(key, rows[key]) for key in keys[:limit]]

        return await self._writes.call(read)

    async def write(self, table: str, put: Mapping[str, bytes] | None = None, delete: Iterable[str] = ()) -> None:
        def apply() -> None:
            rows = self._rows(table)
            for key in delete:
                rows.pop(key, None)
            rows.update(put or {})

        await self._writes.call(apply)

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        def apply() -> int:
            rows = self._rows(table)
            purged = sorted(key for key in rows if after < key < until)[:limit]
            for key in purged:
                del rows[key]
            return len(purged)

        return await self._writes.call(apply)

    def _rows(self, table: str) -> dict[str, bytes]:
        return self._tables.stores.setdefault((self._plugin, table), {})
