"""Functions over HTTP: created, read, changed and deleted as documented."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_app import BASE, PROJECT, REGION, SOURCE, Api, encoded, serve, urn_of, zipped

REQUIRED = {
    "func_name", "domain_id", "namespace", "project_name", "package", "runtime", "timeout", "handler", "memory_size",
    "cpu", "code_type", "code_filename", "code_size", "digest", "version", "image_name", "last_modified", "func_urn",
}  # fmt: skip
CONFIG = {
    "func_name": "hello",
    "handler": "index.handler",
    "memory_size": 256,
    "runtime": "Python3.10",
    "timeout": 9,
}


async def test_a_created_function_is_shown_with_all_that_the_api_promises(api: Api) -> None:
    kept: dict[str, Any] = {  # fields without effect
        "xrole": "agency",
        "func_vpc": {"vpc_id": "v", "subnet_id": "s"},
        "mount_config": {"mount_user": {"user_id": -1, "user_group_id": -1}, "func_mounts": []},
        "enterprise_project_id": "0",
        "functiond": {"priority_cap": 5},
    }
    created = await api.create(description="says hello", user_data='{"A": 1, "B": true}', **kept, unheard_of=[1, 2])
    shown = await api.send("GET", f"/{urn_of()}/config")

    assert created.status == shown.status == 200
    assert created.json == shown.json
    assert created.json.keys() >= REQUIRED
    assert created.json["func_urn"] == urn_of()
    assert (created.json["namespace"], created.json["project_name"]) == (PROJECT, REGION)
    assert (created.json["cpu"], created.json["code_size"]) == (300, len(SOURCE))
    assert created.json["digest"] == hashlib.sha512(SOURCE.encode()).hexdigest()
    assert json.loads(created.json["user_data"]) == {"A": 1, "B": True}
    assert api.catalog.all()[0].user_data == {"A": "1", "B": "true"}
    assert {name: created.json[name] for name in kept} == kept
    assert "unheard_of" not in created.json


async def test_a_package_is_given_back_as_it_was_sent(api: Api) -> None:
    content = zipped(index__py=SOURCE)
    await api.create(code_type="zip", code_filename="code.zip", func_code={"file": encoded(content)})

    shown = await api.send("GET", f"/{urn_of()}/code")

    assert (shown.json["code_type"], shown.json["code_filename"]) == ("zip", "code.zip")
    assert base64.b64decode(shown.json["func_code"]["file"]) == content


async def test_code_is_replaced_on_the_condition_that_it_is_the_named_one(api: Api) -> None:
    before = await api.create()
    body = {"code_type": "inline", "func_code": {"file": encoded("x = 2")}}

    async def replace(digest: str) -> tuple[int, str]:
        after = await api.send("PUT", f"/{urn_of()}/code", body, {"If-Match": digest})
        return after.status, after.json.get("error_msg", "")

    named = [await replace(f'"{before.json["digest"]}"') for _ in range(2)]
    shown = (await api.send("GET", f"/{urn_of()}/code")).json

    assert base64.b64decode(shown["func_code"]["file"]) == b"x = 2"
    assert shown["digest"] != before.json["digest"]
    assert [status for status, _ in named] == [200, 412]
    assert "the code was changed meanwhile" in named[1][1]
    assert [(await replace(condition))[0] for condition in ('""', "*")] == [412, 200]


async def test_a_function_of_an_app_is_changed_and_deleted_by_its_own_app_or_taken_over(api: Api) -> None:
    code = {"code_type": "inline", "func_code": {"file": encoded("x = 2")}}
    await api.create(functiond={"per_key": 3})  # of before: belongs to nobody

    async def app_after(method: str, path: str, body: object, query: str) -> Any:
        answer = await api.send(method, path + query, body)
        return answer.json["functiond"].get("app") if answer.status == 200 else (answer.status, answer.json)

    config, source = f"/{urn_of()}/config", f"/{urn_of()}/code"
    message = "the function hello belongs to the app shop: use another name, or take it over with"
    for method, path, body in (
        ("PATCH", config, {"timeout": 10}),
        ("PUT", source, code),
        ("POST", "", {**CONFIG, **code, "package": "default"}),
        ("DELETE", f"/{urn_of(version='')}", None),
    ):
        claimed = await app_after("PUT", source, code, "?app=shop")
        refused = [await app_after(method, path, body, f"?app={app}") for app in ("crm", "")]
        assert claimed == "shop"
        assert [(status, reply["error_code"]) for status, reply in refused] == [(409, "FSS.1067")] * 2
        assert refused[0][1]["error_msg"] == f"{message} functiond deploy --take-over (in the API take_over=true)"

    kept = [
        await app_after("PATCH", config, {"functiond": {"per_key": 2}}, ""),
        await app_after("PUT", config, CONFIG, ""),
        await app_after("PUT", source, code, ""),
    ]
    listed = [(await api.send("GET", f"?app={app}")).json["count"] for app in ("shop", "crm", "")]
    taken = await app_after("PATCH", config, {}, "?app=crm&take_over=true")
    body_of_another = await app_after("PATCH", config, {"functiond": {"app": "shop"}}, "")
    free = await app_after("PUT", source, code, "?app=&take_over=true")
    invalid = await app_after("PUT", source, code, "?app=a/b")

    assert kept == ["shop"] * 3
    assert api.catalog.all()[0].details["functiond"] == {"per_key": 2}
    assert (listed, taken, body_of_another[0], free, invalid[0]) == ([1, 0, 0], "crm", 409, None, 400)
    assert (await api.send("DELETE", f"/{urn_of(version='')}?app=shop")).status == 204


async def test_code_that_no_reply_can_hold_is_shown_without_its_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    created = await api.create()
    monkeypatch.setattr("engine.http.api.functions.PACKAGE_LIMIT", created.json["code_size"] - 1)

    shown = await api.send("GET", f"/{urn_of()}/code")

    assert shown.json["func_code"] == {"file": "", "link": ""}
    assert shown.json["digest"] == created.json["digest"]


@pytest.mark.parametrize("number", [-1, 0, 1000])
async def test_the_number_of_instances_can_be_changed(api: Api, number: int) -> None:
    await api.create()

    answer = await api.send("PUT", f"/{urn_of()}/config-max-instance", {"max_instance_num": number})

    assert (answer.status, answer.json["strategy_config"]["concurrency"]) == (200, number)
    assert api.catalog.all()[0].max_instances == number


async def test_functions_are_listed_page_by_page(api: Api) -> None:
    for name, package in (("apple", "a"), ("berry", "a"), ("pineapple", "b")):
        await api.create(name, package=package)

    first = await api.send("GET", "?maxitems=2")
    second = await api.send("GET", f"?maxitems=2&marker={first.json['next_marker']}")
    named, packaged = [await api.send("GET", f"?{query}") for query in ("func_name=pine", "package_name=a&maxitems=0")]

    names = [[f["func_name"] for f in page.json["functions"]] for page in (first, second, named, packaged)]
    assert names == [["apple", "berry"], ["pineapple"], ["pineapple"], ["apple", "berry"]]
    assert (first.json["count"], second.json["next_marker"]) == (3, 3)


@pytest.mark.parametrize("name", ["import", "statistics"])
async def test_a_function_may_be_called_like_a_part_of_a_path(api: Api, name: str) -> None:
    await api.create(name)

    deleted = await api.send("DELETE", f"/{name}")
    shown = await api.send("GET", f"/{name}/config")
    not_meant = await api.send("PUT", f"/{name}", {})

    assert (deleted.status, deleted.raw, shown.status, shown.json["error_code"]) == (204, b"", 404, "FSS.1051")
    assert (not_meant.status, not_meant.json["error_code"]) == (405, "FSS.0405")


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"func_name": "1"}, 400, "FSS.1002"),
        ({"handler": "none"}, 400, "FSS.1003"),
        ({"package": ""}, 400, "FSS.1004"),
        ({"runtime": "Go1.x"}, 400, "FSS.1005"),
        ({"code_type": ""}, 400, "FSS.1006"),
        ({"code_type": "obs", "code_url": "https://b/c"}, 400, "FSS.1006"),
        ({"memory_size": 129}, 400, "FSS.1007"),
        ({"memory_size": "128"}, 400, "FSS.1007"),
        ({"timeout": 901}, 400, "FSS.1008"),
        ({"user_data": "A=1"}, 400, "FSS.1009"),
        ({"user_data": '{"A": null}'}, 400, "FSS.1009"),
        ({"func_code": {"file": "?"}}, 400, "FSS.1011"),
        ({"user_data": json.dumps({f"V{n}": "" for n in range(201)})}, 400, "FSS.1017"),
        ({"user_data": json.dumps({"V": "x" * 32_768})}, 400, "FSS.1018"),
        ({"description": "x" * 513}, 400, "FSS.1019"),
        ({"strategy_config": {"concurrency": 1001}}, 400, "FSS.1026"),
        ({"initializer_handler": "x"}, 400, "FSS.1404"),
        ({"initializer_timeout": 0}, 400, "FSS.1405"),
        ({"func_code": {"file": encoded("#" * 10_241)}}, 413, "FSS.1072"),
        ({"code_type": "zip", "func_code": {"file": encoded(b"PK nothing")}}, 400, "FSS.1011"),
        ({"functiond": {"weight": -1}}, 400, "FSS.0400"),
    ],
)
async def test_each_field_that_is_wrong_has_its_code(
    api: Api, fields: dict[str, object], status: int, code: str
) -> None:
    answer = await api.create(**{"name": "hello", **fields})  # type: ignore[arg-type]

    assert (answer.status, answer.json["error_code"]) == (status, code)
    assert not api.catalog.all()


LARGE = {"Content-Type": "application/json", "Content-Length": "99999999"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("PUT", f"/{urn_of()}/code", {"code_type": "inline", "func_code": {}}, {}, 400, "FSS.1012"),
        ("GET", "?maxitems=-1", None, {}, 400, "FSS.1001"),
        ("DELETE", f"/{urn_of()}", None, {}, 400, "FSS.1015"),
        ("POST", "", None, LARGE, 413, "FSS.1071"),
    ],
    ids=[
        "no code in the place of code",
        "a page of less than nothing",
        "latest alone",
        "a body that only code can fill",
    ],
)
async def test_a_request_that_cannot_be_served_has_its_code(
    api: Api, method: str, path: str, body: object, headers: dict[str, str], status: int, code: str
) -> None:
    await api.create()
    answer = await api.send(method, path, body, headers)

    assert (answer.status, answer.json["error_code"]) == (status, code)
    assert len(api.catalog.all()) == 1


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "config", None),
        ("PUT", "config", CONFIG),
        ("PATCH", "config", {"timeout": 10}),
        ("GET", "code", None),
        ("PUT", "code", {"code_type": "inline", "func_code": {}}),
        ("PUT", "config-max-instance", {"max_instance_num": 1}),
        ("PUT", "async-invoke-config", {}),
        ("PATCH", "controls", {"paused": True}),
        ("GET", "async-invocations", None),
        ("POST", "invocations-async", None),
    ],
)
async def test_an_unknown_function_is_not_found(api: Api, method: str, path: str, body: object) -> None:
    answer = await api.send(method, f"/{urn_of('nobody')}/{path}", body)
    assert (answer.status, answer.json["error_code"]) == (404, "FSS.1051")


async def test_health_shows_the_problems_of_the_engine(api: Api) -> None:
    well = [(await api.send("GET", path, base="")).status for path in ("/healthz", "/readyz")]
    api.health["journal"] = "a commit takes too long"
    ill = [await api.send("GET", path, base="") for path in ("/healthz", "/readyz")]
    metrics = await api.send("GET", "/metrics", base="")

    assert (well, [answer.status for answer in ill]) == ([200, 200], [503, 503])
    assert all(answer.json["journal"] == "a commit takes too long" for answer in ill)
    assert (metrics.raw, metrics.headers["content-type"].split(";")[0]) == (b"up 1\n", "text/plain")


FGS = BASE.removesuffix("/functions")


@pytest.mark.parametrize("has_node", [False, True])
async def test_runtimes_without_an_interpreter_are_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_node: bool
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", "/nonexistent")
    if has_node:
        answer = json.dumps(["20.1.0", "node", "x86_64", "glibc", "2.36", "/real/node", "/real/node"])
        (tmp_path / "node").write_text(f"#!/bin/sh\necho '{answer}'\n")
        (tmp_path / "node").chmod(0o755)

    async with serve(tmp_path / "code") as api:
        listed = await api.send("GET", "/runtimetypes", base=FGS)

    names = [runtime["type"] for runtime in listed.json]
    assert any(name.startswith("Node.js") for name in names) == has_node
    assert {"Python2.7", "Python3.10", "Custom", "http", "Lambda"} <= set(names)
