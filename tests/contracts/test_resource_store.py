"""Contract of resource stores: resources of functions and projects."""

from __future__ import annotations

from engine.protocols import Storage, StoredResource


def resource(id: str, *, kind: str = "event", owner: str = "function:1", body: bytes = b"{}") -> StoredResource:
    return StoredResource(kind=kind, owner=owner, id=id, body=body)


async def test_resources_are_loaded_by_owner_and_id(storage: Storage) -> None:
    rows = [resource("b"), resource("a", owner="function:2"), resource("a"), resource("a", kind="trigger")]
    for row in rows:
        await storage.resources.put(row)

    assert list(await storage.resources.load("event")) == [rows[2], rows[0], rows[1]]
    assert list(await storage.resources.load("unheard_of")) == []


async def test_putting_again_replaces(storage: Storage) -> None:
    await storage.resources.put(resource("a", body=b"old"))
    await storage.resources.put(resource("a", body=b"new"))

    assert [row.body for row in await storage.resources.load("event")] == [b"new"]


async def test_only_the_named_resource_is_deleted(storage: Storage) -> None:
    for row in (resource("a"), resource("b"), resource("a", owner="function:2"), resource("a", kind="trigger")):
        await storage.resources.put(row)

    await storage.resources.delete("event", "function:1", "a")
    await storage.resources.delete("event", "function:1", "nothing")

    assert [(row.owner, row.id) for row in await storage.resources.load("event")] == [
        ("function:1", "b"),
        ("function:2", "a"),
    ]
    assert len(await storage.resources.load("trigger")) == 1
