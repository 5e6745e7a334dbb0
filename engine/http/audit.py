"""Audit traces (records of API requests) for operations that change something, whether they succeed or fail.

A trace is made only if a subscriber of the audit trail exists. Reads and invocations (which the journal records) are
not traced, nor are requests that are rejected before their handler runs, such as those without credentials. A trace
includes the bodies of request and reply, with secrets masked and long texts, such as code, cut.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from engine.asgi.wire import JSON, Reply
from engine.errors import FunctiondError
from engine.http.api.errors import error_reply
from engine.http.api.routing import ERROR, ApiFamily, Call, Handler, Resource
from engine.http.api.secrets import without_secrets
from engine.http.operations import OPERATIONS
from engine.model.clock import Clock
from engine.protocols.audit import AuditTrail, Trace

BODY = 64 << 10  #: largest body, in bytes, that is traced
SEARCH = "ShowResInstanceInfo"  #: a read, although its filter is sent by POST


class _Kind(Struct, frozen=True, kw_only=True):
    """Type of a resource in traces, and names of the fields that may hold its id and its name.

    Path, reply and request body are searched for each field name, in this order.
    """

    type: str
    ids: tuple[str, ...]
    names: tuple[str, ...]


#: Kind by a segment of the path; the first segment of this table that the path contains counts.
_KINDS = {
    "triggers": _Kind(type="trigger", ids=("trigger_id",), names=("trigger_type_code",)),
    "aliases": _Kind(type="alias", ids=("alias_urn", "alias_name"), names=("alias_name", "name")),
    "versions": _Kind(type="version", ids=("func_urn",), names=("version",)),
    "events": _Kind(type="event", ids=("event_id", "id"), names=("name",)),
    "dependencies": _Kind(type="dependency", ids=("id", "depend_id"), names=("name", "depend_id")),
    "clock": _Kind(type="clock", ids=(), names=()),
    "deliveries": _Kind(type="delivery", ids=(), names=()),
    "backups": _Kind(type="backup", ids=("path",), names=("path",)),
    "async-invocations": _Kind(type="invocation", ids=("function_urn",), names=("func_name",)),
    "cancel": _Kind(type="invocation", ids=("request_id",), names=("func_name",)),
}
_FUNCTION = _Kind(type="function", ids=("func_urn", "function_urn", "resource_id"), names=("func_name", "resource_id"))


def audited(families: Iterable[ApiFamily], audit: AuditTrail, clock: Clock) -> list[Resource]:
    """Return the resources of all families, with handlers that publish a trace for each call that changes something."""
    changing = [one for one in OPERATIONS if one.method != "GET" and one.name != SEARCH]
    names = {(one.method, one.path): one.name for one in changing}

    def traced(path: str, method: str, handler: Handler) -> Handler:
        name = names.get((method, path))
        return _TracedHandler(name, path, handler, audit, clock) if name else handler

    return [
        Resource(path=one.path, methods={method: traced(one.path, method, it) for method, it in one.methods.items()})
        for family in families
        for one in family.resources()
    ]


class _TracedHandler:
    def __init__(self, operation: str, path: str, handler: Handler, audit: AuditTrail, clock: Clock) -> None:
        self._operation, self._handler, self._audit, self._clock = operation, handler, audit, clock
        self._kind = next((kind for part, kind in _KINDS.items() if part in path.split("/")), _FUNCTION)

    async def __call__(self, call: Call) -> Reply:
        if not self._audit.has_subscribers:
            return await self._handler(call)
        try:
            reply = await self._handler(call)
        except FunctiondError as error:
            call.scope[ERROR] = error
            reply = error_reply(error)
        except Exception:
            self._audit.publish(self._trace(call, Reply(status=500)))
            raise
        self._audit.publish(self._trace(call, reply))
        return reply

    def _trace(self, call: Call, reply: Reply) -> Trace:
        body = traced_body(call.body)
        response = traced_body(reply.body) if reply.content_type == JSON else None
        sources = [_path_fields(call), *(one for one in (response, body) if isinstance(one, dict))]
        trace_id = str(uuid.uuid4())
        request_id = dict(reply.headers).get(b"x-request-id", b"").decode()
        return Trace(
            trace_id=trace_id,
            time=self._clock.now(),
            operation=self._operation,
            project=call.parts.get("project_id", ""),
            resource_type=self._kind.type,
            resource_id=first(self._kind.ids, sources),
            resource_name=first(self._kind.names, sources),
            code=reply.status,
            user=call.principal.name if call.principal else "",
            role=call.principal.role if call.principal else "",
            source_ip=call.address,
            request_id=request_id or trace_id,
            method=call.method,
            path=call.path,
            request=body,
            response=response,
        )


def _path_fields(call: Call) -> dict[str, str]:
    """Return the placeholders of the path with their values.

    If they identify a function, its complete URN and its name are added.
    """
    parts = dict(call.parts)
    with suppress(FunctiondError, KeyError):
        urn = call.urn
        parts |= {"function_urn": str(urn) if urn.qualified else urn.function, "func_name": urn.name}
    return parts


def first(names: Iterable[str], sources: Iterable[Mapping[str, Any]]) -> str:
    """Return the first value that a source has for one of the names; empty if there is none."""
    sources = list(sources)
    return next((str(one[name]) for name in names for one in sources if one.get(name)), "")


def traced_body(body: bytes) -> Any:
    """Return a decoded JSON body with secrets masked; None if it is empty, is not JSON, or exceeds ``BODY`` bytes."""
    if not body or len(body) > BODY:
        return None
    try:
        return without_secrets(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return None
