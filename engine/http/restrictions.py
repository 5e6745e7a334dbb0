"""Restriction of the API and the console to what the role of a request's credentials may use and see."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec
from msgspec.structs import replace

from engine.asgi.streaming import Stream
from engine.asgi.wire import JSON, Reply
from engine.auth.roles import Principal
from engine.errors import AccessDenied
from engine.http.api.large_replies import LargeList, with_items
from engine.http.api.routing import Call, ServedOperation
from engine.http.api.secrets import without_credentials
from engine.protocols import Operation

_PROJECTS = "/v2/"  #: start of the paths whose replies show objects of projects


def restricted(served: Iterable[ServedOperation]) -> list[ServedOperation]:
    """Return operations with handlers that check the role first, and remove from replies what it may not see."""
    return [ServedOperation(each.operation, partial(_handle, each)) for each in served]


async def _handle(served: ServedOperation, call: Call) -> Reply:
    principal, operation = call.principal, served.operation
    if principal is None:
        return await served.handler(call)
    principal.check(operation.name, operation.roles, payloads=operation.payloads)
    reply = await served.handler(call)
    return reply if principal.role == "admin" else await _redacted(reply, operation, principal)


async def _redacted(reply: Reply, operation: Operation, principal: Principal) -> Reply:
    if isinstance(reply, LargeList):
        return await with_items(reply, without_credentials)
    if not isinstance(reply, Stream):
        return _without_hidden(reply, operation, principal)
    if reply.content_type == JSON:  # nothing is sent unless it is known to have no secrets
        raise AccessDenied(f"the reply to {operation.name} is too large for the role {principal.role}")
    return reply


def _without_hidden(reply: Reply, operation: Operation, principal: Principal) -> Reply:
    """Return the reply to an operation without what the principal may not see."""
    if reply.content_type != JSON or not reply.body or not operation.path.startswith(_PROJECTS):
        return reply
    hidden = () if principal.sees_payloads else operation.hidden.get(principal.role, ())
    if operation.hidden and not hidden:
        return reply
    value = msgspec.json.decode(reply.body)
    shown = (
        {name: field for name, field in value.items() if name not in hidden} if hidden else without_credentials(value)
    )
    return replace(reply, body=msgspec.json.encode(shown))
