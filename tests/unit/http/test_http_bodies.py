"""Invalid bodies: the reply names the field, the value and the allowed values, and the document states the limits."""

from __future__ import annotations

import sys
from collections import defaultdict
from contextlib import suppress
from types import FrameType
from typing import Any, Self

import pytest
from msgspec import json

from engine.errors import BadEvent, InvalidField, NotJson
from engine.http.api.async_settings import AsyncSettingsBody
from engine.http.api.decoding import DEPTH, VALUES, decode
from engine.http.api.deliveries import RedriveDeliveriesBody
from engine.http.api.events import CreateEventBody
from engine.http.api.function_shapes import CodeBody, ConfigBody, MaxInstanceBody
from engine.http.api.reserved_instances import ReservedBody
from engine.http.api.versions import AliasBody
from engine.http.openapi import make_document
from engine.http.operations import OPERATIONS
from engine.model.text import without_nulls
from engine.protocols import Operation
from tests.support.http_app import PROJECT, Api, urn_of

CONFIG = {"func_name": "f", "runtime": "Python3.10", "handler": "index.handler", "memory_size": 128, "timeout": 3}
HILL = b"[" * (DEPTH - 2) + b"]" * (DEPTH - 2)


class Work:
    """Count calls in its block, and the bytes on which bytes methods were called."""

    def __enter__(self) -> Self:
        self.calls = self.size = 0
        sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, called: Any) -> None:
        self.calls += event in ("call", "c_call")
        owner = getattr(called, "__self__", None)
        self.size += len(owner) if event == "c_call" and isinstance(owner, bytes) else 0


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (ConfigBody, {**CONFIG, "timeout": 2}, "timeout is 2: must be a whole number from 3 to 259200"),
        (ConfigBody, {**CONFIG, "timeout": "3"}, "timeout is '3': must be a whole number from 3 to 259200"),
        (ConfigBody, {**CONFIG, "memory_size": 1.5}, "memory_size is 1.5: must be one of 128, 256, "),
        (ConfigBody, {**CONFIG, "func_name": "1f"}, "func_name is '1f': needs a letter, then up to 59 letters"),
        (ConfigBody, {**CONFIG, "type": "v3"}, "type is 'v3': must be one of v1, v2"),
        (ConfigBody, {**CONFIG, "description": "x" * 513}, "...: must be text of up to 512 characters"),
        (ConfigBody, {**CONFIG, "ephemeral_storage": 1}, "ephemeral_storage is 1: must be one of 512, 10240"),
        (ConfigBody, {**CONFIG, "enable_lts_log": 1}, "enable_lts_log is 1: must be true or false"),
        (ConfigBody, {**CONFIG, "user_data": {"door": "s3same"}}, "user_data is '******': must be text"),
        (ConfigBody, {**CONFIG, "strategy_config": {"concurrency": -2}}, "strategy_config.concurrency is -2: "),
        (ConfigBody, {**CONFIG, "strategy_config": 7}, "strategy_config is 7: must be an object"),
        (ConfigBody, {"func_name": "f"}, "runtime is missing: it is required"),
        (
            ConfigBody,
            {"func_name": "f", "timeout": 3, "memory_size": 128},
            "runtime is missing: it is required, and so is handler",
        ),
        (
            AsyncSettingsBody,
            {"destination_config": {"on_success": {"destination": "SMN", "param": {"topic_urn": "t"}}}},
            "param is {'topic_urn': 't'}: must be JSON text of up to 8192 characters",
        ),
        (ConfigBody, [], "body is []: must be an object"),
        (CodeBody, {"code_type": "obs", "code_url": "x" * 2049}, "...: must be text of up to 2048 characters"),
        (CodeBody, {"code_type": "zip", "code_filename": "x" * 256}, "...: must be text of up to 255 characters"),
        (
            AsyncSettingsBody,
            {"destination_config": {"on_success": {"destination": "OBS", "param": "x" * 8193}}},
            "destination_config.on_success.param is 'xxx",
        ),
        (AsyncSettingsBody, {"log_group_id": "x" * 257}, "...: must be text of up to 256 characters"),
        (MaxInstanceBody, {"max_instance_num": 1001}, "is 1001: must be a whole number from -1 to 1000"),
        (ReservedBody, {"count": -1}, "count is -1: must be a whole number from 0 to 1000"),
        (
            ReservedBody,
            {"count": 1, "tactics_config": {"cron_configs": [{}, {"count": -3}]}},
            "tactics_config.cron_configs[1].count is -3: must be a whole number from 0",
        ),
        (
            AliasBody,
            {"version": "v1", "additional_version_weights": {"v2": 101}},
            "additional_version_weights[...] is {'v2': 101}: must be a whole number from 0 to 100",
        ),
        (AliasBody, {"version": "v1", "additional_version_weights": []}, "must be an object or must be null"),
        (
            RedriveDeliveriesBody,
            {"delivery_ids": [1, 1 << 64]},
            "delivery_ids[1] is 18446744073709551616: must be a whole",
        ),
    ],
)
def test_an_invalid_field_is_named_with_its_value_and_the_allowed_ones(kind: Any, body: object, said: str) -> None:
    with pytest.raises(InvalidField) as caught:
        decode(json.encode(body), kind)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "body", "nulls"),
    [
        (ConfigBody, CONFIG, {"description": None, "strategy_config": None, "func_vpc": None, "tags": None}),
        (AsyncSettingsBody, {}, {"max_async_retry_attempts": None, "destination_config": {"on_success": None}}),
        (ReservedBody, {"count": 1}, {"idle_mode": None, "tactics_config": {"cron_configs": [{"name": None}]}}),
        (AliasBody, {"version": "v1"}, {"description": None, "additional_version_weights": None}),
    ],
)
def test_a_null_is_as_good_as_nothing(kind: Any, body: dict[str, Any], nulls: dict[str, Any]) -> None:
    assert decode(json.encode(body | nulls), kind) == decode(json.encode(body | without_nulls(nulls)), kind)


def test_a_null_is_no_value_for_what_is_required() -> None:
    with pytest.raises(InvalidField, match="runtime is missing: it is required"):
        decode(json.encode({**CONFIG, "runtime": None, "description": None}), ConfigBody)


def test_a_shape_may_have_an_error_of_its_own() -> None:
    with pytest.raises(BadEvent, match="name is '': needs 1 to 25 letters"):
        decode(b'{"name": "", "content": ""}', CreateEventBody, BadEvent)


#: Limits in the API document: operation, field, a value beyond the limit, and the error code.
LIMITS = [
    ("PUT", f"/functions/{urn_of()}/config", "timeout", 259_201, "FSS.1008"),
    ("PUT", f"/functions/{urn_of()}/config", "memory_size", 129, "FSS.1007"),
    ("PUT", f"/functions/{urn_of()}/config", "initializer_timeout", 301, "FSS.1405"),
    ("PUT", f"/functions/{urn_of()}/config", "pre_stop_timeout", 91, "FSS.0400"),
    ("PUT", f"/functions/{urn_of()}/config", "description", "x" * 513, "FSS.1019"),
    ("PUT", f"/functions/{urn_of()}/config", "func_name", "-", "FSS.1002"),
    ("PUT", f"/functions/{urn_of()}/config", "handler", "x" * 129, "FSS.1003"),
    ("PUT", f"/functions/{urn_of()}/config-max-instance", "max_instance_num", -2, "FSS.1026"),
    ("PUT", f"/functions/{urn_of()}/async-invoke-config", "max_async_retry_attempts", 4, "FSS.0400"),
    ("PUT", f"/functions/{urn_of()}/async-invoke-config", "max_async_event_age_in_seconds", 0, "FSS.0400"),
    ("PUT", f"/functions/{urn_of()}/reservedinstances", "count", 1001, "FSS.0400"),
    ("POST", f"/functions/{urn_of()}/events", "name", "x" * 26, "FSS.1074"),
    ("POST", f"/functions/{urn_of()}/versions", "description", "x" * 513, "FSS.1019"),
    ("POST", f"/functions/{urn_of()}/aliases", "description", "x" * 513, "FSS.1019"),
    ("POST", "/functions/import", "file_type", "tar", "FSS.1013"),
    ("POST", "/dependencies/version", "name", "-", "FSS.1024"),
    ("POST", "/dependencies/version", "description", "x" * 513, "FSS.1024"),
]


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize(("method", "path", "field", "value", "code"), LIMITS)
async def test_a_value_that_the_document_does_not_allow_is_refused(
    api: Api, method: str, path: str, field: str, value: object, code: str
) -> None:
    schema = schema_of(method, path)
    body = {name: example(shape) for name, shape in schema["properties"].items() if name in schema["required"]}

    answer = await api.send(method, path, {**body, field: value}, base=f"/v2/{PROJECT}/fgs")

    assert limits(schema["properties"][field])
    assert (answer.status, answer.json["error_code"]) == (400, code)
    assert answer.json["error_msg"].startswith(f"{field} is ")


#: Largest bodies in bytes that carry no code. All others have 64 KiB; bodies with code are larger.
LONGER = {
    "UpdateFunctionConfig": 256 << 10,
    "PatchFunctionConfig": 256 << 10,
    "CreateFunctionTrigger": 256 << 10,
    "UpdateTrigger": 256 << 10,
    "UpdateFunctionAsyncInvokeConfig": 256 << 10,
    "BatchAsyncInvokeFunction": 6 << 20,
    "CreateEvent": 256 << 10,
    "RunAsyncInvocationAgain": 320 << 10,
    "UpdateEvent": 256 << 10,
    "CreateTags": 256 << 10,
    "DeleteTags": 256 << 10,
    "ShowResInstanceInfo": 1 << 20,
    "QueueCalls": 6 << 20,
    "CreateGroup": 6 << 20,
}
CODE = {"CreateFunction", "UpdateFunctionCode", "ImportFunction"}
CODE |= {"CreateDependencyVersion", "CreateDependency", "UpdateDependency"}
INVOKING = {"AsyncInvokeFunction", "InvokeFunction"}
BODIES = [operation for operation in OPERATIONS if operation.body is not None and operation.name not in CODE | INVOKING]


@pytest.mark.usefixtures("hello")
@pytest.mark.parametrize("operation", BODIES, ids=lambda operation: operation.name)
async def test_a_body_has_the_size_of_what_it_carries_at_most(api: Api, operation: Operation) -> None:
    await api.send("POST", f"/v2/{PROJECT}/fgs/functions/hello/aliases", {"name": "a", "version": "latest"}, base="")
    parts = {"function_urn": urn_of(), "alias_name": "a", "resource_type": "functions", "resource_id": urn_of()}
    path = operation.path.format_map(defaultdict(lambda: "x", {**parts, "project_id": PROJECT, "action": "filter"}))
    limit = LONGER.get(operation.name, 64 << 10)

    fits, over = [await api.send(operation.method, path, b"7".rjust(size), base="") for size in (limit, limit + 1)]

    assert (fits.status, "body is 7: must be" in fits.json["error_msg"]) == (400, True)
    assert (over.status, over.json["error_code"]) == (413, "FSS.0413")
    assert str(limit) in over.json["error_msg"]


def schema_of(method: str, path: str) -> Any:
    document = make_document(OPERATIONS, "")
    template = "/v2/{project_id}/fgs" + path.replace(urn_of(), "{function_urn}")
    content = document["paths"][template][method.lower()]["requestBody"]["content"]
    return document["components"]["schemas"][content["application/json"]["schema"]["$ref"].rpartition("/")[2]]


def limits(schema: dict[str, Any]) -> set[str]:
    return schema.keys() & {"minimum", "maximum", "maxLength", "pattern", "enum", "const"}


def example(schema: dict[str, Any]) -> Any:
    """Return a valid value for the schemas above."""
    if "enum" in schema:
        return schema["enum"][0]
    return schema.get("minimum", "hello" if schema["type"] == "string" else 0)


def nested(levels: int, field: str = "a") -> bytes:
    return b'{"%b":' % field.encode() * levels + b'"[{"' + b"}" * levels


@pytest.mark.parametrize("body", [nested(DEPTH + 1), nested(DEPTH + 1, "func_name"), b"[" * 300 + b"]" * 300])
def test_a_body_is_so_deep_at_most(body: bytes) -> None:
    assert decode(nested(DEPTH), dict[str, Any])

    with pytest.raises(NotJson, match="nested too deeply"):
        decode(body, ConfigBody if b"func_name" in body else Any)


def test_a_number_that_is_too_large_is_told() -> None:
    with pytest.raises(NotJson, match="Number out of range"):
        decode(json.encode(CONFIG)[:-1] + b', "func_vpc": {"a": 1e999}}', ConfigBody)


def test_a_body_that_is_too_deep_is_not_decoded() -> None:
    with pytest.raises(NotJson, match="nested too deeply"):
        decode(b"[" * (DEPTH + 1) + b"nonsense", list[Any])


@pytest.mark.parametrize("start", [b"", b'{"timeout": null, "x": ', json.encode(CONFIG)[:-1] + b', "x": '])
def test_many_brackets_are_gone_through_a_few_times(start: bytes) -> None:
    body = start + b"[" + b",".join([HILL] * ((1 << 20) // len(HILL))) + b"]" + b"}" * bool(start)

    with Work() as work, suppress(InvalidField):
        decode(body, ConfigBody)

    assert work.calls < VALUES
    assert work.size < 20 * len(body)


@pytest.mark.parametrize(
    ("count", "said"), [(VALUES, "timeout is 'soon': must be"), (VALUES + 1, "got `str` - at `$.timeout`")]
)
def test_of_many_values_none_is_shown(count: int, said: str) -> None:
    body = json.encode({**CONFIG, "timeout": "soon", "func_vpc": {"a": [1] * (count - 7)}})
    assert body.count(b",") + body.count(b"[") + body.count(b"{") == count

    with pytest.raises(InvalidField) as caught:
        decode(body, ConfigBody)

    assert said in str(caught.value)


@pytest.mark.usefixtures("hello")
async def test_a_deep_event_of_a_trigger_breaks_nothing(api: Api) -> None:
    path = f"/v2/{PROJECT}/fgs/triggers/{urn_of()}"
    body = b'{"trigger_type_code": "KAFKA", "event_data": %b}' % nested(500)

    reply = await api.send("POST", path, body, base="")

    assert (reply.status, reply.json["error_code"]) == (406, "FSS.0406")
