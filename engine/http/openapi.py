"""OpenAPI 3.1 document of the API, generated from its operations and the structs of their bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Any

import anyio.to_thread
import msgspec
from msgspec import UNSET, Struct, UnsetType

from engine.asgi.wire import Reply
from engine.http.api.metrics import MONTHS, WORKFLOW_METRICS
from engine.http.api.records import MAX_WAIT
from engine.http.api.routing import ALL_ROLES, ApiFamily, ApiOperation, Call, read
from engine.model.limits import LONGEST_DELAY, MEMORY_SIZES, ORDERING_KEY
from engine.model.urn import MAX_LENGTH
from engine.protocols import JSON, Operation

_REF = "#/components/schemas/{name}"
_TEXT = {"type": "string"}
_NUMBER = {"type": "string", "pattern": "^[0-9]{1,9}$"}
#: An empty parameter counts as absent.
_OPTIONAL_NUMBER = {"type": "string", "pattern": "^[0-9]{0,9}$"}
_PARTS = {
    "project_id": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
    "function_urn": {
        "type": "string",
        "maxLength": MAX_LENGTH,
        "description": "Full or short URN: a function's name, package:name, project:package:name[:version].",
    },
    "period": {**_TEXT, "description": "Minutes, a date such as 2026-01-31T23:59:59Z, or two times in seconds."},
}
_NUMBERS = frozenset({"marker", "after", "limit", "maxitems", "start_time", "end_time", "period"})
_FLAG = {"type": "string", "enum": ["", "true", "false"]}
_TIME = {"type": "string", "format": "date-time", "description": "UTC, as 2026-01-31T23:59:59."}
_QUERIES = {
    **dict.fromkeys(_NUMBERS, _OPTIONAL_NUMBER),
    **dict.fromkeys(("config", "code", "take_over"), _FLAG),
    **dict.fromkeys(("query_begin_time", "query_end_time"), _TIME),
    "filter": {"type": "string", "enum": ["monitor_data", "monthly_report"]},
    "option": {"type": "string", "enum": ["", *MONTHS]},
    "metric_type": {"type": "string", "enum": ["", *WORKFLOW_METRICS]},
    "app": {"type": "string", "pattern": r"^[\w.-]{0,64}$", "description": "App of the function; empty: none."},
    "wait": {"type": "string", "pattern": r"^\d{1,2}$", "description": f"Seconds, up to {MAX_WAIT:g}."},
}
_HEADERS = {
    "X-Cff-Instance-Memory": {"type": "string", "enum": ["", *map(str, MEMORY_SIZES)]},
    "X-CFF-Request-Version": {"type": "string", "enum": ["", "v0", "v1"], "default": "v0"},
    "X-Cff-Log-Type": {
        "type": "string",
        "description": "tail: the reply has the end of the log in X-Cff-Function-Log.",
    },
    "X-Functiond-Priority": {"type": "string", "pattern": "^[0-9]$"},
    "X-Functiond-Delay": {"type": "string", "description": f"Seconds, up to {LONGEST_DELAY:.0f}."},
    "X-Functiond-Ordering-Key": {"type": "string", "pattern": f"^[ -~]{{1,{ORDERING_KEY}}}$"},
    "Idempotency-Key": {"type": "string", "pattern": "^[ -~]{1,255}$"},
}

_FAILURES = (400, 401, 403, 404, 406, 409, 413, 429, 503)
#: Methods to authenticate, for an engine that requires credentials.
_SECURITY = {
    "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "SDK-HMAC-SHA256 Access=..., SignedHeaders=..., Signature=..., and X-Sdk-Date",
    },
}


class ErrorReply(Struct, frozen=True, kw_only=True):
    """Body of every error reply."""

    error_code: str
    error_msg: str
    request_id: str | UnsetType = UNSET  #: for errors of workflow metrics only; other replies have just X-Request-Id


class Document(ApiFamily):
    """Resource that returns the OpenAPI document of ``operations``, those of the API, and of those of plugins.

    The document is generated at the first request, and again when ``mounted``, the operations of plugins, have changed.
    """

    def __init__(
        self, operations: Sequence[Operation], version: str, mounted: Callable[[], Sequence[Operation]]
    ) -> None:
        self._operations, self._version, self._mounted = operations, version, mounted
        self._made: tuple[Sequence[Operation], bytes] | None = None

    @read("ShowDocument", "/openapi.json", dict[str, Any], own=True, roles=ALL_ROLES)
    async def show(self, call: Call) -> Reply:
        mounted = self._mounted()
        if self._made is None or self._made[0] != mounted:
            made = await anyio.to_thread.run_sync(make_document, [*self._operations, *mounted], self._version)
            self._made = mounted, msgspec.json.encode(made)
        return Reply(body=self._made[1])


def make_document(operations: Iterable[Operation], version: str) -> dict[str, Any]:
    operations = tuple(operations)
    named = [kind for operation in operations for kind in (operation.body, operation.reply, operation.problem)]
    kinds = [kind for kind in named if kind is not None and kind is not Any]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorReply], ref_template=_REF)
    for field in [field for each in components.values() for field in each.get("properties", {}).values()]:
        if "enum" in field and field.get("default") not in field["enum"]:
            field.pop("default", None)  # stands for an absent field; requests must not have it
    by_kind = dict(zip([str(kind) for kind in [*kinds, ErrorReply]], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each, by_kind)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "functiond",
            "version": version,
            "description": "Accept now, run when idle: the FunctionGraph v2 API of one machine.",
        },
        "servers": [{"url": "/", "description": "The engine that this document is from."}],
        "paths": paths,
        "components": {"schemas": components, "responses": _responses(by_kind), "securitySchemes": _SECURITY},
        "security": [*({name: []} for name in _SECURITY), {}],
    }


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", operation.name).capitalize(),
        "x-functiond-roles": [*operation.roles, "admin"],
        "parameters": list(_parameters(operation)),
        "responses": {str(operation.status): _reply(operation, schemas)},
    }
    if operation.problem is None:
        described["responses"] |= {
            status: {"$ref": f"#/components/responses/{status}"} for status in _statuses(operation)
        }
    described["responses"]["default"] = _problem(operation.problem, schemas)
    if operation.body is not None:
        content = {JSON: {"schema": _schema(operation.body, schemas)}}
        described["requestBody"] = {
            "required": not operation.optional and operation.body is not Any,
            "content": content,
        }
    return described


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    choices = operation.choices if isinstance(operation, ApiOperation) else {}
    for name in re.findall(r"{(\w+)}", operation.path):
        schema = {"type": "string", "enum": choices[name]} if name in choices else _PARTS.get(name, _TEXT)
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name in operation.query:
        yield {"name": name, "in": "query", "schema": _QUERIES.get(name, _TEXT)}
    for name in operation.headers:
        yield {"name": name, "in": "header", "schema": _HEADERS.get(name, _TEXT)}


def _reply(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    if operation.reply is None:
        return {"description": "Success without a body."}
    schema = {} if operation.content != JSON else _schema(operation.reply, schemas)
    content = {operation.content: {"schema": schema}}
    if operation.reply is Any:
        content["text/plain"] = {"schema": {}}
    return {"description": "Success.", "content": content}


def _statuses(operation: Operation) -> Iterable[str]:
    """Return the statuses of the errors that an operation may reply, besides rare ones."""
    if operation.path.startswith("/v2/") or operation.roles != ALL_ROLES:
        yield from ("401", "403", "429", "503")
    if operation.query or operation.headers or "{" in operation.path or operation.body is not None:
        yield "400"
    if operation.path.count("{") > 1:
        yield "404"
    if operation.body is not None:
        yield from ("406", "413")
    if operation.method != "GET":
        yield "409"


def _responses(schemas: dict[str, Any]) -> dict[str, Any]:
    replies = {str(status): _problem(None, schemas, HTTPStatus(status).phrase) for status in _FAILURES}
    for status in ("429", "503"):
        replies[status]["headers"]["Retry-After"] = {"schema": {"type": "integer"}}
    return replies


def _problem(kind: Any, schemas: dict[str, Any], phrase: str = "Failure") -> dict[str, Any]:
    return {
        "description": f"{phrase}, with a code and a message.",
        "headers": {"X-Request-Id": {"schema": _TEXT}},
        "content": {JSON: {"schema": _schema(kind or ErrorReply, schemas)}},
    }


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {} if kind is Any else schemas[str(kind)]
    return schema
