"""Contract of catalog stores: functions and settings are returned as they were stored."""

from __future__ import annotations

from msgspec.structs import replace

from engine.model import AsyncSettings, CodePackage
from engine.protocols import Storage, StoredResource
from tests.contracts.storage import (
    SINK,
    Opened,
)
from tests.support.builders import a_function

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


async def test_putting_again_replaces(storage: Storage) -> None:
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
