"""Agreement of the declared operations, the API document and the vendor's SDK."""

from __future__ import annotations

import inspect
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec.inspect
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from engine import __version__
from engine.app.api_wiring import build_families
from engine.asgi.wire import Message, Reply, Scope
from engine.http.api.gateway import GatewayApi
from engine.http.api.health import HealthChecks
from engine.http.api.invocations import Invocations
from engine.http.api.routing import ApiFamily, Call, operation
from engine.http.openapi import make_document
from engine.http.operations import FAMILIES, OPERATIONS
from engine.protocols import Operation
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

#: Operations outside this engine, by words in the SDK's operation names.
LEFT_OUT = re.compile("Work[Ff]low(?!Metric)|App|Template|VpcEndpoint|Bridge")
#: Operations of FunctionGraph that its SDK has.
GATEWAY = {operation.path for operation, _ in GatewayApi.operations()}
OF_SDK = [each for each in OPERATIONS if not each.own and each.path not in GATEWAY]
EMPTY_LISTS = {"ListFunctionApplications", "ListAppTemplates", "ListFunctionTemplate"}


async def test_every_family_of_operations_is_served(tmp_path: Path) -> None:
    async with house(tmp_path) as place:
        families = build_families(place.engine, HealthChecks())

    assert {type(family) for family in families} | {Invocations} == set(FAMILIES)
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


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
        document = (await client.get("/openapi.json")).json()
        listed = document["paths"]
    async with (
        house(tmp_path, [smn], plugins__smn__endpoint="http://127.0.0.1:1") as place,
        api_client(place) as client,
    ):
        elsewhere = (await client.get("/openapi.json")).json()["paths"]

    OpenAPIV31SpecValidator(document).validate()
    ids = {operation["operationId"] for methods in listed.values() for operation in methods.values()}
    served = [operation for known in tables() for operation in known.operations]
    assert ids == {operation.name for operation in [*OPERATIONS, *served]}
    assert len(ids) == len(OPERATIONS) + len(served)
    assert set(elsewhere) == {operation.path for operation in OPERATIONS}


def test_operations_of_plugins_are_described_as_their_handlers_read_them() -> None:
    for known in tables():
        for offer in known.offers.values():
            kinds = [kind for kind in (offer.body, offer.query) if kind is not None]
            given = list(inspect.signature(offer.handler).parameters.values())[-len(kinds) :] if kinds else []
            assert all(
                kind.__name__ in str(parameter.annotation) for kind, parameter in zip(kinds, given, strict=True)
            ), offer.name


def test_every_operation_of_the_sdk_is_here_but_those_of_absent_families() -> None:
    methods = [name.removesuffix("_invoker") for name in vars(fg.FunctionGraphClient) if name.endswith("_invoker")]
    names = {"".join(word.capitalize() for word in name.split("_")) for name in methods}

    wanted = {name for name in names if name in EMPTY_LISTS or not LEFT_OUT.search(name)}

    assert {operation.name for operation in OF_SDK} == wanted
    assert len(wanted) > 60


async def test_the_document_is_served_as_it_is_made(tmp_path: Path) -> None:
    async with serve(tmp_path) as api:
        answer = await api.send("GET", "/openapi.json", base="")

    assert answer.status == 200
    assert answer.json == json.loads(json.dumps(make_document(OPERATIONS, __version__)))


def test_the_document_names_only_schemas_and_ways_to_authenticate_that_it_has() -> None:
    document = make_document(OPERATIONS, "1.0")

    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert named
    assert named <= set(document["components"]["schemas"])
    schemes = document["components"]["securitySchemes"]
    assert {scheme["name"] for scheme in schemes.values()} == {"X-Auth-Token", "Authorization"}
    assert {name for way in document["security"] for name in way} == set(schemes)


class Things(ApiFamily):
    @operation("ListThings", "GET", "/things", reply=str, query=("kind",))
    async def list_all(self, call: Call) -> Reply:
        return Reply(body=f"{call.text('kind')} {call.text('size')}".encode())

    @operation("DeleteThings", "DELETE", "/things")
    async def delete_all(self, call: Call) -> Reply:
        return Reply()


async def test_a_handler_reads_only_query_parameters_that_its_operation_declares() -> None:
    [listing, _] = Things().served()
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path_params": {},
        "raw_path": b"/things",
        "query_string": b"kind=a&size=2",
        "headers": [],
        "client": None,
    }

    async def receive() -> Message:
        raise AssertionError

    [(declared, _), _] = Things.operations()
    call = Call(scope, receive, "", declared)

    assert call.text("kind") == "a"
    with pytest.raises(LookupError, match="ListThings does not declare the query parameter size"):
        await listing.handler(call)


def test_an_operation_that_is_no_get_leaves_a_trace_unless_it_says_otherwise() -> None:
    assert [declared.traced for declared, _ in Things.operations()] == [False, True]


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's warnings
    from huaweicloudsdkfunctiongraph import v2 as fg

#: Fields that are never sent: packages are downloaded from the engine itself, so there is no link.
NOT_SENT = {"ShowDependencyVersion.download_link"}
_INNER = re.compile(r"^(?:list\[|dict\(str, )(\w+)[\])]$")


def shaped(side: str) -> list[Operation]:
    """Return operations with a struct, or a list of structs, on that side."""
    return [operation for operation in OF_SDK if struct_of(getattr(operation, side)) is not None]


def struct_of(kind: Any) -> msgspec.inspect.StructType | None:
    return None if kind in (None, Any, bytes) else _struct(msgspec.inspect.type_info(kind))


def _struct(kind: msgspec.inspect.Type) -> msgspec.inspect.StructType | None:
    if isinstance(kind, msgspec.inspect.StructType):
        return kind
    if isinstance(kind, msgspec.inspect.Metadata):
        return _struct(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(filter(None, map(_struct, kind.types)), None)
    if isinstance(kind, msgspec.inspect.ListType):
        return _struct(kind.item_type)
    return _struct(kind.value_type) if isinstance(kind, msgspec.inspect.DictType) else None


def lacking(path: str, model: Any, shape: msgspec.inspect.StructType) -> Iterator[str]:
    """Yield fields of the model, at any depth, that the struct lacks."""
    fields = {field.encode_name: field.type for field in shape.fields}
    for attribute, kind in model.openapi_types.items():
        name = model.attribute_map[attribute]
        inner = getattr(fg, _INNER.sub(r"\1", kind), None)
        below = _struct(fields[name]) if name in fields else None
        if name not in fields:
            yield f"{path}.{name}"
        elif hasattr(inner, "openapi_types") and below is not None:
            yield from lacking(f"{path}.{name}", inner, below)


@pytest.mark.parametrize("operation", shaped("reply"), ids=lambda operation: operation.name)
def test_a_reply_has_every_field_that_the_sdk_reads(operation: Operation) -> None:
    model, shape = getattr(fg, f"{operation.name}Response"), struct_of(operation.reply)
    if "body" in model.openapi_types:  # the reply is an array
        model = getattr(fg, _INNER.sub(r"\1", model.openapi_types["body"]))

    assert shape is not None
    assert set(lacking(operation.name, model, shape)) <= NOT_SENT


@pytest.mark.parametrize("operation", shaped("body"), ids=lambda operation: operation.name)
def test_a_body_has_every_field_that_the_sdk_sends(operation: Operation) -> None:
    model = getattr(fg, getattr(fg, f"{operation.name}Request").openapi_types["body"])
    shape = struct_of(operation.body)

    assert shape is not None
    assert list(lacking(operation.name, model, shape)) == []


@pytest.mark.parametrize("operation", OF_SDK, ids=lambda operation: operation.name)
def test_a_path_query_and_headers_have_every_parameter_that_the_sdk_sends(operation: Operation) -> None:
    request = getattr(fg, f"{operation.name}Request")
    sent = {name.lower() for attribute, name in request.attribute_map.items() if attribute not in ("body", "func_urn")}

    known = {name.lower() for name in (*operation.query, *operation.headers, *re.findall(r"{(\w+)}", operation.path))}

    assert sent <= known
