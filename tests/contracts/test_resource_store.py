"""Contract of resource stores: resources of functions and projects, on disk and in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import anyio
import pytest

from engine.protocols import ResourceStore, StoredResource
from engine.storage.sqlite import locked, open_storage
from engine.testing.resources import MemoryResourceStore

Opened = Callable[[], AbstractAsyncContextManager[ResourceStore]]


@pytest.fixture(params=["sqlite", "memory"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    @asynccontextmanager
    async def on_disk() -> AsyncIterator[ResourceStore]:
        with locked(tmp_path):
            async with open_storage(tmp_path) as storage, anyio.create_task_group() as tasks:
                tasks.start_soon(storage.writer.run)
                yield storage.resources
                storage.writer.close()

    @asynccontextmanager
    async def in_memory() -> AsyncIterator[ResourceStore]:
        yield MemoryResourceStore()

    return on_disk if request.param == "sqlite" else in_memory


def resource(id: str, *, kind: str = "event", owner: str = "function:1", body: bytes = b"{}") -> StoredResource:
    return StoredResource(kind=kind, owner=owner, id=id, body=body)


async def test_what_is_put_is_loaded_by_owner_and_id(opened: Opened) -> None:
    async with opened() as store:
        rows = [resource("b"), resource("a", owner="function:2"), resource("a"), resource("a", kind="trigger")]
        for row in rows:
            await store.put(row)

        assert list(await store.load("event")) == [rows[2], rows[0], rows[1]]
        assert list(await store.load("unheard_of")) == []


async def test_putting_again_replaces(opened: Opened) -> None:
    async with opened() as store:
        await store.put(resource("a", body=b"old"))
        await store.put(resource("a", body=b"new"))

        assert [row.body for row in await store.load("event")] == [b"new"]


async def test_only_the_named_one_is_deleted(opened: Opened) -> None:
    async with opened() as store:
        for row in (resource("a"), resource("b"), resource("a", owner="function:2"), resource("a", kind="trigger")):
            await store.put(row)

        await store.delete("event", "function:1", "a")
        await store.delete("event", "function:1", "nothing")

        assert [(row.owner, row.id) for row in await store.load("event")] == [("function:1", "b"), ("function:2", "a")]
        assert len(await store.load("trigger")) == 1
