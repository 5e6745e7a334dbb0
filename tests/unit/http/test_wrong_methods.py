"""Requests with a wrong method, an unknown name, or a field that does not exist."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from engine.asgi.ignored_fields import MOST_NAMES
from engine.http import server
from engine.http.operations import OPERATIONS
from engine.http.plugin_requests import variables
from engine.protocols import Operation
from tests.support.http_app import PROJECT, Api, serve, urn_of
from tests.unit.http.test_roles import ask, console, path_of

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def methods_of(path: str, operations: Iterable[Operation] = OPERATIONS) -> set[str]:
    """Return the methods of all operations at a path. Templates such as ``{request_id}`` and ``cancel`` both match."""
    return {operation.method for operation in operations if variables(operation.path, path.split("/")) is not None}


async def test_a_wrong_method_is_answered_with_those_that_the_path_has(tmp_path: Path) -> None:
    async with console(tmp_path) as (_, client):
        for operation in OPERATIONS:
            path = path_of(operation)
            wrong = next(method for method in METHODS if method not in methods_of(path))
            reply = await ask(client, "invoke", wrong, path)

            if operation.lacks:
                problem = reply.json()
                assert (reply.status_code, problem["error_code"]) == (426, "FSS.0426"), (wrong, path, reply.text)
                assert problem["error_msg"] == f"this engine has no {operation.lacks}"
                continue
            assert reply.status_code == 405, (wrong, path, reply.text)
            assert operation.method in reply.headers["allow"].split(", "), path
            assert reply.json()["error_msg"].startswith("method not allowed; use ")


async def test_a_wrong_method_at_a_path_of_a_plugin_is_not_a_matter_of_the_role(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        served = place.engine.plugins.mounts.operations()
        for operation in served:
            path = path_of(operation)
            right = methods_of(path, served)
            for rights in ("invoke", "admin"):
                reply = await ask(client, rights, next(method for method in METHODS if method not in right), path)

                assert reply.status_code == 405, (rights, path, reply.text)
                assert set(reply.headers["allow"].split(", ")) == right | ({"HEAD"} if "GET" in right else set()), path

        unknown = await ask(client, "invoke", "GET", f"/v2/{PROJECT}/streams/a/b")
        assert unknown.status_code == 403


async def test_each_path_with_get_has_head_without_a_body(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        served = [*OPERATIONS, *place.engine.plugins.mounts.operations()]
        for operation in served:
            path = path_of(operation)
            if operation.method != "GET":
                continue
            both = [await ask(client, "admin", method, path) for method in ("GET", "HEAD")]

            assert both[0].status_code == both[1].status_code, (path, both[1].status_code)
            assert both[0].headers.keys() == both[1].headers.keys(), path
            assert both[1].content == b"", path


@pytest.mark.usefixtures("hello")
async def test_head_of_a_live_log_ends_at_once(api: Api) -> None:
    for _ in range(2):
        reply = await api.send("HEAD", f"/{urn_of()}/logs", headers={"Accept": "text/event-stream"})

        assert (reply.status, reply.raw) == (200, b"")


IGNORED = "x-functiond-ignored-fields"


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(server, "PAUSE", 0.0)
    async with serve(tmp_path) as api:
        yield api


async def test_an_unknown_function_suggests_up_to_three_near_names(api: Api) -> None:
    for name in ("resize", "resize-2", "Resizer", "resized", "report"):
        await api.create(name)

    answer = await api.invoke("resise")

    message = answer.json["error_msg"]
    assert (answer.status, answer.json["error_code"]) == (404, "FSS.1051")
    assert message.startswith("Not found the function resise; did you mean resize or ")
    assert message.count(" or ") == 2
    assert "report" not in message
    assert (await api.invoke("x")).json["error_msg"] == "Not found the function x"
    await api.create("convert", package="images")
    assert (await api.invoke("convert")).json["error_msg"].endswith("convert; did you mean images:convert?")


async def test_names_are_suggested_only_to_those_who_may_list_functions(tmp_path: Path) -> None:
    async with console(tmp_path) as (place, client):
        [function] = place.engine.catalog.list(PROJECT)
        path = f"/v2/{PROJECT}/fgs/functions/{function.name}e/async-invocations"
        invoke, read = await ask(client, "invoke", "GET", path), await ask(client, "read", "GET", path)

    unknown = f"Not found the function {function.name}e"
    assert invoke.json()["error_msg"] == unknown
    assert read.json()["error_msg"] == f"{unknown}; did you mean {function.name}?"


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("PATCH", "/config", {"memory_sise": 256}, "unknown field `memory_sise`; did you mean `memory_size`?"),
        ("PATCH", "/controls", {"bursts": 5}, "unknown field `bursts`; did you mean `burst`?"),
        ("POST", "/async-invocations/redrive", {"ids": []}, "unknown field `ids`; expected one of "),
        ("POST", "/async-invocations/cancel", {"state": "WAIT"}, "unknown field `state`; did you mean `status`?"),
        ("POST", "/pause", {"raeson": ""}, "unknown field `raeson`; did you mean `reason`?"),
    ],
)
async def test_own_operations_refuse_unknown_fields(
    api: Api, method: str, path: str, body: dict[str, Any], words: str
) -> None:
    await api.create()

    answer = await api.send(method, f"/{urn_of()}{path}", body)

    assert (answer.status, answer.json["error_code"]) == (400, "FSS.0400")
    assert words in answer.json["error_msg"]


async def test_unknown_fields_of_the_vendors_operations_are_told_and_logged_once(api: Api) -> None:
    with capture_logs() as logs:
        first = await api.create("one", unheard_of=[1], func_code={"file": "", "fil\u00e9, x": 1}, nothing=None)
        second = await api.create("two", unheard_of=[2])
        known = await api.create("three")
    unknown: dict[str, Any] = {f"unknown_{number}": number for number in range(1000)}
    many = await api.create("four", **unknown)

    lines = [line for line in logs if line["event"] == "unknown fields ignored"]
    assert (first.status, second.status) == (200, 200)
    assert first.headers[IGNORED] == "func_code.fil\\xe9\\x2c x, unheard_of"
    assert second.headers[IGNORED] == "unheard_of"
    assert IGNORED not in known.headers
    assert many.headers[IGNORED].count(",") == MOST_NAMES - 1
    assert [(line["operation"], line["fields"]) for line in lines] == [
        ("POST /v2/{project_id}/fgs/functions", ["func_code.fil\\xe9\\x2c x", "unheard_of"])
    ]
