"""Stores in memory whose writes fail while ``broken`` is set to an exception."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio.lowlevel

from engine.model import AsyncSettings, Function
from engine.protocols import StoredResource
from tests.doubles import MemoryCatalogStore
from tests.doubles.store import MemoryResourceStore


class BreakableCatalogStore(MemoryCatalogStore):
    """Catalog store that calls ``written`` after each write, and ``deleted_with`` with the triggers of a version."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: Exception | None = None
        self.written: Callable[[], None] = lambda: None
        self.deleted_with: Callable[[Sequence[StoredResource]], None] = lambda bound: None

    async def put_functions(self, functions: Sequence[Function], resources: Sequence[StoredResource] = ()) -> None:
        async with self._write():
            await super().put_functions(functions, resources)

    async def publish(self, version: Function, settings: AsyncSettings | None) -> None:
        async with self._write():
            await super().publish(version, settings)

    async def delete_version(self, function_id: int, version: str, bound: Sequence[StoredResource] = ()) -> None:
        async with self._write():
            await super().delete_version(function_id, version, bound)
            self.deleted_with(bound)

    async def delete_function(self, function_id: int) -> None:
        async with self._write():
            await super().delete_function(function_id)

    async def put_settings(self, function_id: int, version: str, settings: AsyncSettings) -> None:
        async with self._write():
            await super().put_settings(function_id, version, settings)

    async def delete_settings(self, function_id: int, version: str) -> None:
        async with self._write():
            await super().delete_settings(function_id, version)

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[None]:
        if self.broken:
            raise self.broken
        yield
        # Like a journal: an accepted invocation stays stored although its caller is cancelled.
        self.written()
        await anyio.lowlevel.checkpoint()


class BreakableResourceStore(MemoryResourceStore):
    broken: Exception | None = None

    async def put(self, resource: StoredResource) -> None:
        if self.broken:
            raise self.broken
        await super().put(resource)

    async def delete(self, kind: str, owner: str, id: str) -> None:
        if self.broken:
            raise self.broken
        await super().delete(kind, owner, id)
