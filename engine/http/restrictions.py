"""Restriction of the API and the console to what the role of a request's credentials may use and see."""

from __future__ import annotations

from collections.abc import Iterable

from engine.asgi.streaming import Stream
from engine.asgi.wire import JSON, Reply, Scope
from engine.auth.roles import PRINCIPAL, Principal
from engine.errors import AccessDenied
from engine.http.api.large_replies import LargeList, with_items
from engine.http.api.routing import Call, Handler, Resource
from engine.http.redaction import redacted, without_credentials
from engine.protocols import Operation


def check_role(scope: Scope, operation: Operation) -> None:
    """Raise AccessDenied unless the request's credentials, if it needs any, may use the operation."""
    principal: Principal | None = scope.get(PRINCIPAL)
    if principal is not None and principal.role != "admin":
        principal.check(operation.name, operation.roles, payloads=operation.payloads)


def restricted(resources: Iterable[Resource], operations: Iterable[Operation]) -> list[Resource]:
    """Return the resources with handlers that check the role first, and remove from replies what it may not see.

    A handler whose path and method are not among ``operations`` is for the role admin only.
    """
    by_request = {(one.method, one.path): one for one in operations}

    def checked(path: str, method: str, handler: Handler) -> Handler:
        unknown = Operation(name=f"{method} {path}", method=method, path=path)
        return _RestrictedHandler(by_request.get((method, path), unknown), handler)

    return [
        Resource(path=one.path, methods={method: checked(one.path, method, it) for method, it in one.methods.items()})
        for one in resources
    ]


class _RestrictedHandler:
    def __init__(self, operation: Operation, handler: Handler) -> None:
        self._operation, self._handler = operation, handler

    async def __call__(self, call: Call) -> Reply:
        principal, operation = call.principal, self._operation
        if principal is None:
            return await self._handler(call)
        principal.check(operation.name, operation.roles, payloads=operation.payloads)
        if principal.role == "admin":
            return await self._handler(call)
        return await _redacted(await self._handler(call), operation, principal)


async def _redacted(reply: Reply, operation: Operation, principal: Principal) -> Reply:
    if isinstance(reply, LargeList):
        return await with_items(reply, without_credentials)
    if not isinstance(reply, Stream):
        return redacted(reply, operation, principal)
    if reply.content_type == JSON:  # nothing is sent unless it is known to have no secrets
        raise AccessDenied(f"the reply to {operation.name} is too large for the role {principal.role}")
    return reply
