"""Request and response models of the vendor's SDK, compared with the engine's structs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec import inspect

from engine.http.operations import OPERATIONS
from engine.protocols import Operation

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the SDK's warnings
    from huaweicloudsdkfunctiongraph import v2 as fg

#: Fields that are never sent: packages are downloaded from the engine itself, so there is no link.
NOT_SENT = {"ShowDependencyVersion.download_link"}
_INNER = re.compile(r"^(?:list\[|dict\(str, )(\w+)[\])]$")


def shaped(side: str) -> list[Operation]:
    """Return operations with a struct, or a list of structs, on that side."""
    return [
        operation for operation in OPERATIONS if not operation.own and struct_of(getattr(operation, side)) is not None
    ]


def struct_of(kind: Any) -> inspect.StructType | None:
    return None if kind in (None, Any, bytes) else _struct(inspect.type_info(kind))


def _struct(kind: inspect.Type) -> inspect.StructType | None:
    if isinstance(kind, inspect.StructType):
        return kind
    if isinstance(kind, inspect.Metadata):
        return _struct(kind.type)
    if isinstance(kind, inspect.UnionType):
        return next(filter(None, map(_struct, kind.types)), None)
    if isinstance(kind, inspect.ListType):
        return _struct(kind.item_type)
    return _struct(kind.value_type) if isinstance(kind, inspect.DictType) else None


def lacking(path: str, model: Any, shape: inspect.StructType) -> Iterator[str]:
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


@pytest.mark.parametrize(
    "operation", [operation for operation in OPERATIONS if not operation.own], ids=lambda operation: operation.name
)
def test_a_path_query_and_headers_have_every_parameter_that_the_sdk_sends(operation: Operation) -> None:
    request = getattr(fg, f"{operation.name}Request")
    sent = {name.lower() for attribute, name in request.attribute_map.items() if attribute not in ("body", "func_urn")}

    known = {name.lower() for name in (*operation.query, *operation.headers, *re.findall(r"{(\w+)}", operation.path))}

    assert sent <= known
