"""Audit traces (records of API requests) for operations that change something, whether they succeed or fail.

A trace is made only if a subscriber of the audit trail exists. Reads and invocations (which the journal records) are
not traced, nor are requests that are rejected before their handler runs, such as those without credentials. A trace
includes the bodies of request and reply, with secrets masked and long texts, such as code, cut.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Struct

from engine.asgi.wire import JSON, Reply, Scope
from engine.auth.roles import PRINCIPAL, Principal
from engine.auth.verifier import address_of
from engine.errors import FunctiondError
from engine.http.api.errors import error_reply
from engine.http.api.routing import ERROR, ApiFamily, ApiOperation, Call, Handler, ServedOperation, Subject, whole_path
from engine.http.api.secrets import without_secrets
from engine.model.clock import Clock
from engine.protocols.audit import AuditTrail, Trace

BODY = 64 << 10  #: largest body, in bytes, that is traced


def audited(families: Iterable[ApiFamily], audit: AuditTrail, clock: Clock) -> list[ServedOperation]:
    """Return the operations of all families, with handlers that publish a trace of each call that changes something."""
    return [
        ServedOperation(declared, _traced(declared, family, name, audit, clock))
        for family in families
        for declared, name in family.operations()
    ]


def _traced(declared: ApiOperation, family: ApiFamily, name: str, audit: AuditTrail, clock: Clock) -> Handler:
    handler: Handler = getattr(family, name)

    def publish(call: Call, reply: Reply) -> None:
        request_id = dict(reply.headers).get(b"X-Request-Id", b"").decode()
        response = reply.body if reply.content_type == JSON else b""
        exchange = Exchange(status=reply.status, request_id=request_id, request=call.body, response=response)
        path, now = _path_fields(call), clock.now()
        audit.publish(make_trace(call.scope, declared.name, family.subject, path, exchange, now))

    async def handle(call: Call) -> Reply:
        if not audit.has_subscribers:
            return await handler(call)
        try:
            reply = await handler(call)
        except FunctiondError as error:
            call.scope[ERROR] = error
            reply = error_reply(error)
        except Exception:
            publish(call, Reply(status=500))
            raise
        publish(call, reply)
        return reply

    return handle if declared.traced else handler


class Exchange(Struct, frozen=True, kw_only=True):
    """Bodies of a request and of its reply, with the status of the reply."""

    status: int
    request_id: str  #: empty: the reply has none
    request: bytes
    response: bytes


def make_trace(
    scope: Scope,
    operation: str,
    subject: Subject,
    path: Mapping[str, str],
    exchange: Exchange,
    now: float,
    **service: str,
) -> Trace:
    """Return the trace of a request. ``path`` has the placeholders of its path with their values."""
    principal: Principal | None = scope.get(PRINCIPAL)
    request, response = _traced_body(exchange.request), _traced_body(exchange.response)
    sources = [path, *(body for body in (response, request) if isinstance(body, dict))]
    trace_id = str(uuid.uuid4())
    return Trace(
        trace_id=trace_id,
        time=now,
        operation=operation,
        project=path.get("project_id", ""),
        resource_type=subject.type,
        resource_id=_first(subject.ids, sources),
        resource_name=_first(subject.names, sources),
        code=exchange.status,
        user=principal.name if principal else "",
        role=principal.role if principal else "",
        source_ip=address_of(scope),
        request_id=exchange.request_id or trace_id,
        method=scope["method"],
        path=whole_path(scope),
        request=request,
        response=response,
        **service,
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


def _first(names: Iterable[str], sources: Sequence[Mapping[str, Any]]) -> str:
    """Return the first value that a source has for one of the names; empty if there is none."""
    return next((str(source[name]) for name in names for source in sources if source.get(name)), "")


def _traced_body(body: bytes) -> Any:
    """Return a decoded JSON body with secrets masked; None if it is empty, is not JSON, or exceeds ``BODY`` bytes."""
    if not body or len(body) > BODY:
        return None
    try:
        return without_secrets(msgspec.json.decode(body))
    except (msgspec.DecodeError, RecursionError):
        return None
