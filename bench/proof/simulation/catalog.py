"""Functions, resources and tables of plugins in the simulated storage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bench.proof.simulation.tables import Tables
from bench.proof.simulation.writes import Writes
from engine.model import AsyncSettings, Function
from engine.protocols import (
    StoredResource,
)


class SimulatedCatalog:
    def __init__(self, tables: Tables, writes: Writes) -> None:
        self._tables, self._writes = tables, writes

    async def load(self) -> tuple[Sequence[Function], dict[tuple[int, str], AsyncSettings]]:
        return list(self._tables.functions.values()), dict(self._tables.settings)

    async def new_function_id(self) -> int:
        return max(function_id for function_id, _ in self._tables.functions) + 1

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        new = {(one.function_id, one.version): one for one in functions}
        others = {(one.kind, one.owner, one.id): one for one in resources}

        def apply() -> None:
            self._tables.functions.update(new)
            self._tables.resources.update(others)

        await self._writes.call(apply)

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        await self.put_functions([version])

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        await self._writes.call(lambda: self._tables.functions.pop((function_id, version), None))

    async def delete_function(self, function_id: int) -> None:
        def apply() -> None:
            tables, owner = self._tables, f"function:{function_id}"
            tables.functions = {key: one for key, one in tables.functions.items() if key[0] != function_id}
            tables.settings = {key: one for key, one in tables.settings.items() if key[0] != function_id}
            tables.resources = {key: one for key, one in tables.resources.items() if key[1] != owner}

        await self._writes.call(apply)

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        await self._writes.call(lambda: self._tables.settings.update({(function_id, version): settings}))

    async def delete_settings(self, function_id: int, version: str) -> None:
        await self._writes.call(lambda: self._tables.settings.pop((function_id, version), None))


class SimulatedResources:
    def __init__(self, tables: Tables, writes: Writes) -> None:
        self._tables, self._writes = tables, writes

    async def load(self, kind: str) -> Sequence[StoredResource]:
        return [one for key, one in sorted(self._tables.resources.items()) if key[0] == kind]

    async def put(self, resource: StoredResource) -> None:
        key = (resource.kind, resource.owner, resource.id)
        await self._writes.call(lambda: self._tables.resources.update({key: resource}))

    async def delete(self, kind: str, owner: str, id: str) -> None:
        await self._writes.call(lambda: self._tables.resources.pop((kind, owner, id), None))


class SimulatedStore:
    """Store of one plugin, or of the engine's own small tables."""

    def __init__(self, tables: Tables, writes: Writes, plugin: str) -> None:
        self._tables, self._writes, self._plugin = tables, writes, plugin

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
            for key in delete:
                self._rows(table).pop(key, None)
            self._rows(table).update(put or {})

        await self._writes.call(apply)

    async def purge(self, table: str, until: str, *, after: str = "", limit: int = 1000) -> int:
        def apply() -> int:
            rows = self._rows(table)
            keys = sorted(key for key in rows if after < key < until)[:limit]
            for key in keys:
                del rows[key]
            return len(keys)

        return await self._writes.call(apply)

    def _rows(self, table: str) -> dict[str, bytes]:
        return self._tables.stores.setdefault((self._plugin, table), {})
