"""Dependencies: whole ones and their versions, public ones, pages, and requests that are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.model import Dependency
from engine.protocols.catalog import decode_resource
from tests.support.http_app import PROJECT, Answer, Api, encoded, serve, urn_of, zipped

ROOT, OTHER = f"/v2/{PROJECT}/fgs/dependencies", "/v2/other/fgs/dependencies"
SHARED = f"{PROJECT}/tool"
FIRST, SECOND = (zipped(lib__py=f"VALUE = {number}\n") for number in (1, 22))

assert len(FIRST) != len(SECOND)  # the tests tell them apart by their sizes


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with serve(tmp_path, shared_dependencies=[SHARED, "other/absent"]) as api:
        yield api


def body(name: str = "lib", package: bytes = FIRST, **fields: object) -> dict[str, object]:
    zip_file = {"depend_type": "zip", "depend_file": encoded(package)}
    return {"name": name, "runtime": "Python3.10", "description": "first", **zip_file, **fields}


async def ask(api: Api, method: str, path: str = "", body: object = None, root: str = ROOT) -> Answer:
    return await api.send(method, path, body, base=root)


async def made(api: Api, path: str = "", root: str = ROOT, **fields: Any) -> Any:
    answer = await ask(api, "POST", path, body(**fields), root)
    assert answer.status == 200, answer
    return answer.json


async def listed(api: Api, query: str = "", root: str = ROOT) -> list[Any]:
    answer = await ask(api, "GET", f"?{query}", root=root)
    assert answer.status == 200, answer
    entries: list[Any] = answer.json["dependencies"]
    return entries


def refused(answer: Answer, status: int, code: str, said: str = "") -> bool:
    assert (answer.status, answer.json["error_code"]) == (status, code), answer
    return said in answer.json["error_msg"]


async def test_a_whole_dependency_is_created_shown_changed_and_deleted(api: Api) -> None:
    created = await made(api)
    path = f"/{created['id']}"
    shown = (await ask(api, "GET", path)).json

    changed = await ask(api, "PUT", path, body("renamed", SECOND, runtime="Python3.9", description="then"))
    after = (await ask(api, "GET", path)).json
    deleted, gone = await ask(api, "DELETE", path), await ask(api, "GET", path)

    assert shown == created
    assert (shown["dep_id"], shown["version"], shown["owner"], shown["size"]) == (created["id"], 1, PROJECT, len(FIRST))
    assert (changed.status, changed.json, after["id"], after["version"]) == (200, after, created["id"], 1)
    assert [after[name] for name in ("name", "runtime", "description", "size")] == [
        "renamed",
        "Python3.9",
        "then",
        len(SECOND),
    ]
    assert after["etag"] != shown["etag"]
    assert (deleted.status, deleted.raw) == (204, b"")
    assert refused(gone, 404, "FSS.1056")


async def test_the_list_names_dependencies_and_the_list_of_versions_names_versions(api: Api) -> None:
    first, second = [await made(api, "/version") for _ in range(2)]

    [whole] = await listed(api)
    versions = (await ask(api, "GET", f"/{whole['id']}/version")).json["dependencies"]

    assert (whole["id"], whole["dep_id"], whole["version"]) == (first["dep_id"], first["dep_id"], 2)
    assert [version["id"] for version in versions] == [second["id"], first["id"]]
    assert whole["id"] not in (first["id"], second["id"])
    assert (await ask(api, "GET", f"/{whole['id']}")).json == whole


async def test_a_whole_dependency_is_deleted_with_all_versions_or_not_at_all(api: Api) -> None:
    first, second = [await made(api, "/version") for _ in range(2)]
    created = (await api.create(depend_version_list=[first["dep_id"]])).json

    assert [dependency["id"] for dependency in created["dependencies"]] == [second["id"]]  # the newest version
    assert created["depend_version_list"] == [first["dep_id"]]
    assert refused(await ask(api, "DELETE", f"/{first['dep_id']}"), 412, "FSS.1033", "used by hello:latest")
    assert (await ask(api, "GET", f"/{first['dep_id']}/version")).json["count"] == 2

    await api.send("DELETE", f"/{urn_of(version='')}")
    assert (await ask(api, "DELETE", f"/{first['dep_id']}")).status == 204
    assert await listed(api) == []
    assert refused(await ask(api, "GET", f"/{second['dep_id']}/version/2"), 404, "FSS.1056")


async def test_a_changed_package_reaches_its_functions_but_no_published_version(api: Api) -> None:
    lib, other = await made(api), await made(api, name="other")
    for name, used in (("user", lib), ("stranger", other)):
        await api.create(name, depend_version_list=[used["id"]])
        await api.send("POST", f"/{urn_of(name, '')}/versions", {"version": "v1"})
    before = {function.name: function for function in api.catalog.list(PROJECT)}

    await ask(api, "PUT", f"/{lib['id']}", body(package=SECOND))

    after = {function.name: function for function in api.catalog.list(PROJECT)}
    published = (await api.send("GET", f"/{urn_of('user', ':v1')}/config")).json
    shown = (await api.send("GET", f"/{urn_of('user')}/config")).json
    assert [dependency["size"] for dependency in (shown["dependencies"][0], published["dependencies"][0])] == [
        len(SECOND),
        len(FIRST),
    ]
    assert shown["depend_version_list"] == [lib["id"]]
    assert after["user"].revision > before["user"].revision
    assert after["stranger"] == before["stranger"]


async def test_a_change_is_stored_in_dependency_and_functions_or_in_none(api: Api) -> None:
    lib = await made(api)
    await api.create(depend_version_list=[lib["id"]])
    before = api.catalog.list(PROJECT)
    api.writes.fail("the disk is full")

    failed = await ask(api, "PUT", f"/{lib['id']}", body(package=SECOND))
    unchanged = (await ask(api, "GET", f"/{lib['id']}")).json, api.catalog.list(PROJECT)
    api.writes.heal()
    again = await ask(api, "PUT", f"/{lib['id']}", body(package=SECOND))

    assert (failed.status, unchanged) == (503, (lib, before))
    assert (again.status, again.json["size"]) == (200, len(SECOND))
    [row] = await api.storage.resources.load("dependency")
    [function] = (await api.storage.catalog.load())[0]
    assert decode_resource(row, Dependency) == function.dependencies[0] == api.catalog.list(PROJECT)[0].dependencies[0]
    await ask(api, "PUT", f"/{lib['id']}", body(package=SECOND, description="then"))
    [after] = api.catalog.list(PROJECT)
    assert (after.revision, after.dependencies[0].description) == (function.revision, "then")  # no instance starts anew


async def test_a_function_of_another_runtime_keeps_its_copy(api: Api) -> None:
    lib = await made(api)
    await api.create(depend_version_list=[lib["id"]])
    [before] = api.catalog.list(PROJECT)
    [row] = await api.storage.resources.load("dependency")

    # A function can be created while a change, which no function prevented, is being written.
    await api.catalog.replace_dependency(replace(before.dependencies[0], runtime="Python3.9"), row)

    assert api.catalog.list(PROJECT) == [before]


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"name": "-"}, 400, "FSS.1024", "name is '-'"),
        ({"name": "taken"}, 409, "FSS.1065", "choose another name"),
        ({"runtime": "Cobol"}, 400, "FSS.1024", "runtime is 'Cobol'"),
        ({"description": "x" * 513}, 400, "FSS.1024", "description is"),
        ({"package": b"no zip"}, 400, "FSS.1024", "depend_file is"),
        ({"depend_type": "rpm"}, 400, "FSS.1032", "depend_type is 'rpm'"),
        ({"depend_type": "obs", "depend_file": "", "depend_link": "obs://a/b.zip"}, 400, "FSS.1032", "depend_type is"),
    ],
)
async def test_a_bad_request_neither_creates_nor_changes_anything(
    api: Api, fields: dict[str, Any], status: int, code: str, said: str
) -> None:
    kept, taken = await made(api), await made(api, name="taken")

    created = await ask(api, "POST", "", body(**{"name": "new", **fields}))
    changed = await ask(api, "PUT", f"/{kept['id']}", body(**fields))

    assert refused(created, status, code, said)
    assert refused(changed, status, code, said)
    assert await listed(api) == [kept, taken]


async def test_a_name_that_exists_gets_no_second_dependency(api: Api) -> None:
    kept = await made(api)

    assert refused(await ask(api, "POST", "", body()), 409, "FSS.1065", "choose another name")
    assert refused(await ask(api, "POST", "/version", body(runtime="Python3.9")), 409, "FSS.1065", "use that runtime")
    assert (await ask(api, "GET", f"/{kept['id']}/version")).json["count"] == 1


@pytest.mark.parametrize("changes", [{"name": "renamed"}, {"runtime": "Python3.9"}])
async def test_several_versions_keep_one_name_and_runtime(api: Api, changes: dict[str, Any]) -> None:
    first, _ = [await made(api, "/version") for _ in range(2)]

    answer = await ask(api, "PUT", f"/{first['dep_id']}", body(**changes))
    same = await ask(api, "PUT", f"/{first['dep_id']}", body(package=SECOND))

    assert refused(answer, 400, "FSS.1024", "in 2 versions: delete the others first")
    assert (same.status, same.json["version"], same.json["size"]) == (200, 2, len(SECOND))
    assert (await ask(api, "GET", f"/{first['dep_id']}/version/1")).json == first


async def test_the_runtime_stays_while_a_function_uses_the_dependency(api: Api) -> None:
    lib = await made(api)
    await api.create(depend_version_list=[lib["id"]])
    await api.send("POST", f"/{urn_of(version='')}/versions", {"version": "v1"})

    answer = await ask(api, "PUT", f"/{lib['id']}", body(runtime="Python3.9"))
    await api.send("PUT", f"/{urn_of()}/code", {"code_type": "zip", "depend_version_list": [], "func_code": CODE})
    published = await ask(api, "PUT", f"/{lib['id']}", body(runtime="Python3.9"))

    assert refused(answer, 412, "FSS.1033", "used by hello:latest")
    assert (published.status, published.json["runtime"]) == (200, "Python3.9")


CODE_ZIP = zipped(index__py="def handler(event, context):\n    return event\n")
CODE = {"file": encoded(CODE_ZIP)}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_unknown_dependency_is_not_found(api: Api, method: str) -> None:
    version = await made(api, "/version")

    for id in ("nothing", version["id"]):
        assert refused(await ask(api, method, f"/{id}", body() if method == "PUT" else None), 404, "FSS.1056")
    assert len(await listed(api)) == 1


async def test_an_unknown_runtime_is_no_filter(api: Api) -> None:
    await made(api)

    answer = await ask(api, "GET", "?runtime=runtime_not_found")

    assert refused(answer, 400, "FSS.1005", "Invalid runtime.")
    assert [len(await listed(api, f"runtime={runtime}")) for runtime in ("", "Python3.10", "Python3.9", "Java8")] == [
        1,
        1,
        0,
        0,
    ]


async def test_a_shared_dependency_is_public_in_every_project(api: Api) -> None:
    tool, own = await made(api, name="tool"), await made(api, name="own")
    foreign = await made(api, name="foreign", root=OTHER)

    assert {dependency["id"] for dependency in await listed(api, root=OTHER)} == {tool["id"], foreign["id"]}
    assert {dependency["id"] for dependency in await listed(api)} == {tool["id"], own["id"]}
    for query in ("dependency_type=public", "ispublic=true"):
        for root in (ROOT, OTHER):
            [public] = await listed(api, query, root)
            assert (public["id"], public["owner"], public["is_shared"]) == (tool["id"], "public", True)
    for query in ("dependency_type=private", "ispublic=false"):
        assert [dependency["id"] for dependency in await listed(api, query, OTHER)] == [foreign["id"]]
    assert (foreign["owner"], foreign["is_shared"]) == ("other", False)


async def test_a_function_of_another_project_uses_a_shared_dependency_and_no_other(api: Api) -> None:
    tool, own = await made(api, name="tool"), await made(api, name="own")
    denied, used = await _user(api, "other", own["id"]), await _user(api, "other", tool["id"])

    assert refused(denied, 404, "FSS.1056")
    assert (used.status, [dependency["name"] for dependency in used.json["dependencies"]]) == (200, ["tool"])
    assert (await ask(api, "GET", f"/{tool['id']}/version", root=OTHER)).json["count"] == 1
    assert refused(await ask(api, "GET", f"/{own['id']}/version", root=OTHER), 404, "FSS.1056")
    in_use = await ask(api, "DELETE", f"/{tool['id']}")
    assert refused(in_use, 412, "FSS.1033", "tool 1 is used by a function of another project: detach it there first")
    [shown] = used.json["dependencies"]
    assert (shown["owner"], shown["is_shared"]) == ("public", True)


async def test_only_its_own_project_changes_a_shared_dependency(api: Api) -> None:
    tool = await made(api, name="tool")

    for method, path in (("PUT", ""), ("DELETE", ""), ("DELETE", "/version/1")):
        answer = await ask(api, method, f"/{tool['id']}{path}", body() if method == "PUT" else None, OTHER)
        assert refused(answer, 403, "FSS.0403", "only the project that owns it")
    assert (await ask(api, "GET", f"/{tool['id']}")).json == tool
    assert (await made(api, name="tool", root=OTHER))["version"] == 1
    assert (await ask(api, "DELETE", f"/{tool['id']}")).status == 204


async def test_a_package_that_published_versions_keep_counts_toward_the_quota_of_its_project(api: Api) -> None:
    tool = await made(api, name="tool")
    users = [await _user(api, "other", tool["id"]), await _user(api, PROJECT, tool["id"])]
    await api.send("POST", f"/{urn_of('user', '')}/versions", {"version": "v1"})

    changed = await ask(api, "PUT", f"/{tool['id']}", body("tool", SECOND))

    assert [answer.status for answer in (*users, changed)] == [200] * 3
    kept = {package.size for package in api.catalog.packages_of(PROJECT)}
    assert kept == {len(FIRST), len(SECOND), len(CODE_ZIP)}
    assert {package.size for package in api.catalog.packages_of("other")} == {len(CODE_ZIP)}


async def _user(api: Api, project: str, id: str) -> Answer:
    create = {"func_name": "user", "runtime": "Python3.10", "handler": "index.handler", "memory_size": 128}
    create |= {"timeout": 3, "package": "default", "code_type": "zip", "func_code": CODE}
    return await api.send("POST", "", {**create, "depend_version_list": [id]}, base=f"/v2/{project}/fgs/functions")
