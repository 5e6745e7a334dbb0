"""Agreement of resources in memory and on disk, with concurrent changes of their function."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.lowlevel
from msgspec import Struct

from engine.protocols import StoredResource
from engine.resources.repository import Repository
from tests.doubles.store import MemoryResourceStore

OWNER = "function:1"


class Note(Struct, frozen=True, kw_only=True):
    text: str


class Store(MemoryResourceStore):
    """Store with a callback after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.on_put: Callable[[], object] = lambda: None

    async def put(self, resource: StoredResource) -> None:
        await super().put(resource)
        await anyio.lowlevel.checkpoint()
        self.on_put()


def repository_on(store: Store, alive: set[int]) -> Repository[Note]:
    return Repository(store, "note", Note, lambda function_id: function_id in alive)


async def test_a_function_deleted_while_its_resource_is_written_leaves_none() -> None:
    store, alive = Store(), {1}
    repository = repository_on(store, alive)
    store.on_put = alive.clear

    await repository.put(OWNER, "a", Note(text="x"))

    assert dict(repository.of(OWNER)) == {}
    assert await store.load("note") == []


async def test_orphans_of_a_deleted_function_are_removed_at_the_start() -> None:
    store = Store()
    await repository_on(store, {1}).put(OWNER, "a", Note(text="x"))
    await repository_on(store, {1}).put("project:p", "a", Note(text="y"))
    repository = repository_on(store, set())

    await repository.load()

    assert [(owner, note.text) for owner, _, note in repository.all()] == [("project:p", "y")]
    assert len(await store.load("note")) == 1


async def test_a_change_is_done_to_its_end_though_its_caller_is_cancelled() -> None:
    store = Store()
    repository = repository_on(store, {1})
    with anyio.CancelScope() as scope:
        store.on_put = scope.cancel
        async with repository.change():
            await repository.put(OWNER, "a", Note(text="x"))

    assert dict(repository.of(OWNER)) == {"a": Note(text="x")}
    assert len(await store.load("note")) == 1
