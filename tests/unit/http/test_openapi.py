"""Agreement of the operation table, the routes, the API document and the vendor's SDK."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.app.api_wiring import build_families
from engine.http.api.health import HealthChecks
from engine.http.api.routing import BASE, Handler
from engine.http.openapi import make_document
from engine.http.operations import OPERATIONS
from engine.http.operations_table import ABSENT, EXPLAINED, table
from plugins._shared.vendor_api import Table
from plugins.dis import plugin as dis
from plugins.dis.api import DisApi
from plugins.lts import plugin as lts
from plugins.lts.api import LtsApi
from plugins.smn import plugin as smn
from plugins.smn.api import SmnApi
from tests.support.http_app import serve
from tests.support.triggering import api_client, house

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's warnings
    from huaweicloudsdkfunctiongraph import v2 as fg

API_PAGE = Path(__file__).parents[3] / "engine" / "docs" / "api.md"
#: Operations that are answered without the router.
FAST = {
    ("POST", f"{BASE}/functions/{{function_urn}}/{action}")
    for action in ("invocations", "invocations-async", "invocations-async/batch")
}
#: Operations outside this engine, by words in the SDK's operation names.
LEFT_OUT = re.compile("Work[Ff]low(?!Metric)|App|Template|VpcEndpoint|Bridge")
EMPTY_LISTS = {"ListFunctionApplications", "ListAppTemplates", "ListFunctionTemplate"}
NO_BODY = re.compile(r"\.read\(|_read|\.read_code\(")


async def handlers(folder: Path) -> dict[tuple[str, str], Handler]:
    async with house(folder) as place:
        families = build_families(place.engine, HealthChecks())
    resources = [one for family in families for one in family.resources()]
    return {(method, one.path): handler for one in resources for method, handler in one.methods.items()}


async def test_every_route_is_an_operation_and_every_operation_is_a_route(tmp_path: Path) -> None:
    routes = await handlers(tmp_path)

    assert {(one.method, one.path) for one in OPERATIONS} == set(routes) | FAST
    assert len({one.name for one in OPERATIONS}) == len(OPERATIONS)


async def test_operations_take_the_bodies_that_their_handlers_read(tmp_path: Path) -> None:
    routes = await handlers(tmp_path)

    for operation in OPERATIONS:
        handler = routes.get((operation.method, operation.path))
        if handler is not None:
            source, module = inspect.getsource(handler), inspect.getsource(inspect.getmodule(handler) or json)
            assert bool(NO_BODY.search(source)) == (operation.body is not None), operation.name
            assert operation.body is None or operation.body.__name__ in module, operation.name


def tables() -> Iterator[Table]:
    """Yield the route tables of all plugins at the vendor's paths."""
    nothing: Any = None
    yield SmnApi(nothing).table
    yield SmnApi(nothing).tags
    yield DisApi(nothing, nothing).table
    yield LtsApi(nothing, nothing, labels=False).table
    yield LtsApi(nothing, nothing, labels=False).tags


async def test_the_document_lists_what_plugins_serve_while_they_do(tmp_path: Path) -> None:
    async with house(tmp_path, [smn, dis, lts]) as place, api_client(place) as client:
        listed = (await client.get("/openapi.json")).json()["paths"]
    async with (
        house(tmp_path, [smn], plugins__smn__endpoint="http://127.0.0.1:1") as place,
        api_client(place) as client,
    ):
        elsewhere = (await client.get("/openapi.json")).json()["paths"]

    found = {one["operationId"] for methods in listed.values() for one in methods.values()}
    served = [one for known in tables() for one in known.operations]
    assert found == {one.name for one in [*OPERATIONS, *served]}
    assert len(found) == len(OPERATIONS) + len(served)
    assert set(elsewhere) == {one.path for one in OPERATIONS}


def test_what_plugins_offer_is_described_as_their_handlers_read_it() -> None:
    for known in tables():
        for offer in known.offers.values():
            kinds = [kind for kind in (offer.body, offer.query) if kind is not None]
            given = list(inspect.signature(offer.handler).parameters.values())[-len(kinds) :] if kinds else []
            assert all(kind.__name__ in str(one.annotation) for kind, one in zip(kinds, given, strict=True)), offer.name


def test_every_operation_of_the_sdk_is_here_but_those_of_absent_families() -> None:
    methods = [name.removesuffix("_invoker") for name in vars(fg.FunctionGraphClient) if name.endswith("_invoker")]
    names = {"".join(word.capitalize() for word in name.split("_")) for name in methods}

    wanted = {name for name in names if name in EMPTY_LISTS or not LEFT_OUT.search(name)}

    assert {one.name for one in OPERATIONS if not one.own} == wanted
    assert len(wanted) > 60


async def test_the_document_is_served_as_it_is_made(tmp_path: Path) -> None:
    async with serve(tmp_path) as api:
        answer = await api.send("GET", "/openapi.json", base="")

    assert answer.status == 200
    assert answer.json == json.loads(json.dumps(make_document(OPERATIONS, "")))


def test_the_document_names_only_schemas_that_it_has() -> None:
    document = make_document(OPERATIONS, "1.0")

    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert named
    assert named <= set(document["components"]["schemas"])


def test_the_document_tells_how_requests_are_authenticated() -> None:
    document = make_document(OPERATIONS, "1.0")

    schemes = {one["name"] for one in document["components"]["securitySchemes"].values()}

    assert schemes == {"X-Auth-Token", "Authorization"}
    assert {name for way in document["security"] for name in way} == set(document["components"]["securitySchemes"])


def test_the_table_is_printed() -> None:
    command = [sys.executable, "-m", "engine.http.operations_table"]

    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert table() in said
    assert said.count("\n|") == len(OPERATIONS) + 1


def test_the_table_in_the_documentation_is_true() -> None:
    text = API_PAGE.read_text()

    assert table() in text
    assert EXPLAINED in text
    assert f"Not served: {', '.join(ABSENT)}." in text
