"""Known paths with a method that they do not have: 405, and the methods that they have in Allow."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.http.operations import OPERATIONS
from engine.http.plugin_requests import variables
from engine.protocols import Operation
from tests.support.http_app import PROJECT, Api, urn_of
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
