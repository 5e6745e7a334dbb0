"""Requests to the paths of plugins: check of the caller's role, and audit traces of changes.

The operations that a plugin serves at its paths are in its own table. Requests that plugins authenticate themselves,
such as signed webhooks, have no role and leave no trace here.
"""

from __future__ import annotations

from collections.abc import Iterator

from engine.asgi.error_replies import not_allowed
from engine.asgi.wire import NO_STORE, WHOLE_REPLY, Message, Receive, Scope, Send, respond
from engine.auth.roles import PRINCIPAL, Principal
from engine.http.api.routing import Subject, check_role
from engine.http.audit import BODY, Exchange, make_trace
from engine.model.clock import Clock
from engine.protocols import Operation
from engine.protocols.audit import AuditTrail
from engine.triggers.routes import Mount, Mounts

_IDS = ("resource_id", "topic_urn", "subscription_urn", "log_stream_id", "log_group_id", "stream_name", "app_name")
_NAMES = ("stream_name", "app_name", "log_stream_name", "log_group_name", "name", "topic_urn")


class PluginRequests:
    """Applications of plugins, with the engine's own checks in front of them.

    ``only_signed``: those whose callers the engine authenticates.
    """

    def __init__(self, mounts: Mounts, audit: AuditTrail, clock: Clock, *, only_signed: bool = False) -> None:
        self._mounts, self._audit, self._clock = mounts, audit, clock
        self.find = self._find_signed if only_signed else mounts.find  #: application for a request's path, or None

    def _find_signed(self, path: str) -> Mount | None:
        mount = self._mounts.find(path)
        return mount if mount is not None and mount.signed else None

    async def serve(self, mount: Mount, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application of a plugin.

        A wrong method at a known path is passed on for the role admin only. Other roles get 405 from the engine, so
        that an operation that a plugin has not listed stays out of their reach.

        Raises AccessDenied if the credentials of the request have a role that may not use the operation.
        """
        principal: Principal | None = scope.get(PRINCIPAL)
        traced = mount.signed and scope["method"] != "GET" and self._audit.has_subscribers
        if not traced and (principal is None or principal.role == "admin"):
            await mount.app(scope, receive, send)
            return
        operation = next(self._operations(scope, scope["method"]), None)
        if operation is None and principal is not None and principal.role != "admin":
            methods = dict.fromkeys(other.method for other in self._operations(scope))
            if methods:
                await respond(scope, send, not_allowed(methods), NO_STORE)
                return
        # A request that is in no table is for the role admin; the plugin answers it with an error.
        unknown = Operation(name=f"{scope['method']} {scope['path'][:200]}", method=scope["method"], path=scope["path"])
        check_role(scope, operation or unknown)
        if not traced or operation is None or operation.data:
            await mount.app(scope, receive, send)
            return
        recorder = _Recorder(receive, send)
        # Whole replies would bypass ``recorder.send``.
        extensions = {name: it for name, it in scope.get("extensions", {}).items() if name != WHOLE_REPLY}
        await mount.app({**scope, "extensions": extensions}, recorder.receive, recorder.send)
        if recorder.status:
            subject = Subject(_resource_type(operation.path), _IDS, _NAMES)
            path = variables(operation.path, scope["path"].rstrip("/").split("/")) or {}
            exchange, now, service = recorder.exchange(), self._clock.now(), mount.plugin.upper()
            self._audit.publish(make_trace(scope, operation.name, subject, path, exchange, now, service=service))

    def _operations(self, scope: Scope, method: str = "") -> Iterator[Operation]:
        """Yield the operations at the path of a request; with ``method``, only those of this method."""
        parts = scope["path"].rstrip("/").split("/")
        operations = (operation for operation in self._mounts.operations() if not method or operation.method == method)
        return (operation for operation in operations if variables(operation.path, parts) is not None)


class _Recorder:
    """Receive and send callables of a request that keep its body, and the status and body of its reply.

    Of bodies longer than traces show, only the first part is kept; they are not JSON then, and stay out of the trace.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._request, self._response = bytearray(), bytearray()
        self.status, self._request_id = 0, ""

    async def receive(self) -> Message:
        message = await self._receive()
        self._request += message.get("body", b"")[: BODY + 1 - len(self._request)]
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._request_id = dict(message["headers"]).get(b"X-Request-Id", b"").decode("latin-1")
        self._response += message.get("body", b"")[: BODY + 1 - len(self._response)]
        await self._send(message)

    def exchange(self) -> Exchange:
        request, response = bytes(self._request), bytes(self._response)
        return Exchange(status=self.status, request_id=self._request_id, request=request, response=response)


def variables(template: str, parts: list[str]) -> dict[str, str] | None:
    """Return the variables of a path by name; None if the path does not match the template of an operation."""
    wanted = template.split("/")
    if len(wanted) != len(parts):
        return None
    pairs = list(zip(wanted, parts, strict=True))
    if any(name != part for name, part in pairs if not name.startswith("{")):
        return None
    return {name[1:-1]: part for name, part in pairs if name.startswith("{")}


def _resource_type(template: str) -> str:
    """Return the type of an operation's resource: the last fixed word of its path, in the singular."""
    words = [word for word in template.split("/") if word and not word.startswith("{")]
    return words[-1].partition("-")[0].removesuffix("s")
