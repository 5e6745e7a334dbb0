"""Contracts of stores: plugins' rows, resources of functions and projects, and the catalog."""

from __future__ import annotations

from msgspec.structs import replace

from engine.model import AsyncSettings, CodePackage
from engine.protocols import Storage, StoredResource
from tests.support.builders import a_function
from tests.support.storages import (
    SINK,
    Opened,
)


async def test_rows_come_in_the_order_of_their_keys_between_bounds(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {"b": b"2", "a": b"1", "d": b"4", "c": b"3"})

    assert await store.scan("records", after="a", until="d") == [("b", b"2"), ("c", b"3")]
    assert await store.scan("records", limit=2, newest=True) == [("d", b"4"), ("c", b"3")]
    assert await store.get("records", "a") == b"1"


async def test_one_write_puts_and_deletes(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {"a": b"1", "b": b"2"})
    await store.write("records", {"c": b"3", "b": b"9"}, delete=["a", "missing"])

    assert await store.scan("records") == [("b", b"9"), ("c", b"3")]


async def test_tables_and_plugins_are_apart(storage: Storage) -> None:
    await storage.store("dis").write("records", {"a": b"1"})

    assert await storage.store("dis").scan("streams") == []
    assert await storage.store("smn").get("records", "a") is None


async def test_purging_goes_in_steps(storage: Storage) -> None:
    store = storage.store("dis")
    await store.write("records", {f"{number:02}": b"" for number in range(10)})

    gone = [await store.purge("records", "08", after="00", limit=4) for _ in range(3)]

    assert gone == [4, 3, 0]
    assert [key for key, _ in await store.scan("records")] == ["00", "08", "09"]


async def test_rows_outlive_the_engine(opened: Opened) -> None:
    async with opened() as storage:
        await storage.store("dis").write("records", {"a": b"1"})

    async with opened() as storage:
        assert await storage.store("dis").get("records", "a") == b"1"


# --- resources -----------------------------------------------------------------------------------------------


def resource(id: str, *, kind: str = "event", owner: str = "function:1", body: bytes = b"{}") -> StoredResource:
    return StoredResource(kind=kind, owner=owner, id=id, body=body)


async def test_resources_are_loaded_by_owner_and_id(storage: Storage) -> None:
    rows = [resource("b"), resource("a", owner="function:2"), resource("a"), resource("a", kind="trigger")]
    for row in rows:
        await storage.resources.put(row)

    assert list(await storage.resources.load("event")) == [rows[2], rows[0], rows[1]]
    assert list(await storage.resources.load("unheard_of")) == []


async def test_a_resource_that_is_put_again_replaces_the_earlier_one(storage: Storage) -> None:
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


# --- catalog -------------------------------------------------------------------------------------------------

FUNCTION = a_function(
    function_id=1,
    project="p",
    code=CodePackage(sha256="a" * 64, digest="b" * 128, size=10),
    user_data={"k": "é"},
    details={"any": [1, None, {"x": 1.5}]},
)
SETTINGS = AsyncSettings(max_age=60, max_retries=2, on_failure=SINK, details={"x": 1})


async def test_at_first_there_is_nothing(storage: Storage) -> None:
    functions, settings = await storage.catalog.load()

    assert (list(functions), settings) == ([], {})


async def test_stored_functions_and_settings_are_there_for_the_next_engine(opened: Opened) -> None:
    async with opened() as storage:
        await storage.catalog.put_functions([FUNCTION])
        await storage.catalog.put_settings(1, "latest", SETTINGS)

    async with opened() as storage:
        functions, settings = await storage.catalog.load()
        assert (list(functions), settings) == ([FUNCTION], {(1, "latest"): SETTINGS})


async def test_a_function_that_is_put_again_replaces_the_earlier_one(storage: Storage) -> None:
    changed = replace(FUNCTION, revision=2, timeout=9)
    await storage.catalog.put_functions([FUNCTION])
    await storage.catalog.put_functions([changed])
    await storage.catalog.put_settings(1, "latest", SETTINGS)
    await storage.catalog.put_settings(1, "latest", AsyncSettings())

    functions, settings = await storage.catalog.load()

    assert (list(functions), settings) == ([changed], {(1, "latest"): AsyncSettings()})


async def test_versions_stand_side_by_side(storage: Storage) -> None:
    await storage.catalog.put_functions([FUNCTION])
    await storage.catalog.put_functions([replace(FUNCTION, version="v1")])

    functions, _ = await storage.catalog.load()

    assert {function.version for function in functions} == {"latest", "v1"}


async def test_a_function_goes_with_its_settings_and_leaves_the_others(storage: Storage) -> None:
    other = replace(FUNCTION, function_id=2, name="other")
    for function in (FUNCTION, other):
        await storage.catalog.put_functions([function])
        await storage.catalog.put_settings(function.function_id, "latest", SETTINGS)
    await storage.catalog.delete_function(1)

    functions, settings = await storage.catalog.load()

    assert (list(functions), set(settings)) == ([other], {(2, "latest")})


async def test_settings_of_one_version_can_go(storage: Storage) -> None:
    await storage.catalog.put_settings(1, "latest", SETTINGS)
    await storage.catalog.put_settings(1, "v1", SETTINGS)
    await storage.catalog.delete_settings(1, "latest")

    assert set((await storage.catalog.load())[1]) == {(1, "v1")}


async def test_deleting_what_is_not_there_is_no_error(storage: Storage) -> None:
    await storage.catalog.delete_settings(1, "latest")
    await storage.catalog.delete_function(1)

    assert list((await storage.catalog.load())[0]) == []


async def test_a_number_of_a_function_is_never_given_again(opened: Opened) -> None:
    async with opened() as storage:
        first = await storage.catalog.new_function_id()
        await storage.catalog.put_functions([replace(FUNCTION, function_id=first)])
        await storage.catalog.delete_function(first)

    async with opened() as storage:
        assert await storage.catalog.new_function_id() > first


async def test_a_version_comes_with_its_settings_and_leaves_with_them(storage: Storage) -> None:
    version = replace(FUNCTION, version="v1", revision=2)
    await storage.catalog.put_functions([FUNCTION])
    await storage.catalog.publish(version, SETTINGS)
    published = await storage.catalog.load()
    await storage.catalog.delete_version(1, "v1")

    assert published[1] == {(1, "v1"): SETTINGS}
    assert sorted(f.version for f in published[0]) == ["latest", "v1"]
    assert await storage.catalog.load() == ([FUNCTION], {})


async def test_several_versions_change_together(storage: Storage) -> None:
    both = [replace(FUNCTION, max_instances=9), replace(FUNCTION, version="v1", max_instances=9)]

    await storage.catalog.put_functions(both)

    functions, _ = await storage.catalog.load()
    assert sorted((f.version, f.max_instances) for f in functions) == [("latest", 9), ("v1", 9)]


async def test_functions_are_stored_together_with_resources(storage: Storage) -> None:
    old, new = [StoredResource(kind="dependency", owner="project:p", id="a", body=body) for body in (b"1", b"2")]
    await storage.resources.put(old)

    await storage.catalog.put_functions([FUNCTION], [new])

    assert (await storage.catalog.load())[0] == [FUNCTION]
    assert list(await storage.resources.load("dependency")) == [new]


async def test_resources_of_a_function_are_deleted_with_it(storage: Storage) -> None:
    await storage.catalog.put_functions([FUNCTION])
    own, other = [
        StoredResource(kind="event", owner=owner, id="a", body=b"{}") for owner in ("function:1", "function:11")
    ]
    for resource in (own, other):
        await storage.resources.put(resource)

    await storage.catalog.delete_function(1)

    assert list(await storage.resources.load("event")) == [other]


async def test_resources_bound_to_a_version_are_deleted_with_it(storage: Storage) -> None:
    await storage.catalog.publish(replace(FUNCTION, version="v1"), None)
    bound, other = [StoredResource(kind="trigger", owner="function:1", id=id, body=b"{}") for id in ("a", "b")]
    for resource in (bound, other):
        await storage.resources.put(resource)

    await storage.catalog.delete_version(1, "v1", [bound])

    assert list(await storage.resources.load("trigger")) == [other]
