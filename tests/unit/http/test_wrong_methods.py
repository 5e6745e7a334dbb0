"""Known paths with a method that they do not have: 405, and the methods that they have in Allow."""

from __future__ import annotations

from pathlib import Path

from engine.http.operations import OPERATIONS
from engine.http.plugin_requests import variables
from tests.unit.http.test_roles import ask, path_of, secured

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def methods_of(path: str) -> set[str]:
    """Return the methods of all operations at a path. Templates such as ``{request_id}`` and ``cancel`` both match."""
    return {one.method for one in OPERATIONS if variables(one.path, path.split("/")) is not None}


async def test_a_wrong_method_is_answered_with_those_that_the_path_has(tmp_path: Path) -> None:
    async with secured(tmp_path) as (_, client):
        for operation in OPERATIONS:
            path = path_of(operation)
            wrong = next(method for method in METHODS if method not in methods_of(path))
            reply = await ask(client, "invoke", wrong, path)

            assert reply.status_code == 405, (wrong, path, reply.text)
            assert operation.method in reply.headers["allow"].split(", "), path
            assert reply.json()["error_msg"].startswith("method not allowed; use ")
