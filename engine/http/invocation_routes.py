"""Routes of invocation requests, which are the hot path: they are found without the router."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from engine.asgi.wire import Headers, Receive, Reply, Scope
from engine.errors import InvalidField
from engine.http.api.invocations import Invocations
from engine.http.api.routing import Call, Handler, Resource, own_urn
from engine.http.operations import OPERATIONS
from engine.http.restrictions import check_role
from engine.model.urn import FunctionUrn

MAX_TARGET = 1200  #: bytes; no URN needs more, even with every byte percent-encoded

_NAMES = ("InvokeFunction", "AsyncInvokeFunction", "BatchAsyncInvokeFunction")
_SYNC, _ASYNC, _BATCH = (next(one for one in OPERATIONS if one.name == name) for name in _NAMES)


class InvocationRoutes:
    """Paths of functions in ``region`` that end with ``invocations``, ``invocations-async`` or its ``batch``."""

    def __init__(self, invocations: Invocations, region: str) -> None:
        self._invocations, self._region = invocations, region
        self._target = lru_cache(4096)(self._read_target)

    def find(self, scope: Scope, headers: Headers, receive: Receive) -> Awaitable[Reply] | None:
        """Return the reply to a POST request that invokes a function; None for any other request.

        Raises InvalidField and AccessDenied if the request names no function that the caller may invoke.
        """
        if scope["method"] != "POST":
            return None
        path: bytes = scope["raw_path"]
        head, _, action = path.rpartition(b"/")
        if action == b"invocations-async":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _ASYNC)
            return self._invocations.accept(target, headers, receive)
        if action == b"invocations":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _SYNC)
            return self._invocations.call(target, headers, receive)
        if action == b"batch" and head.endswith(b"/invocations-async"):
            if (target := self._target(head.removesuffix(b"/invocations-async"))) is None:
                return None
            check_role(scope, _BATCH)
            return self._invocations.accept_batch(target, headers, receive)
        return None

    def resources(self) -> list[Resource]:
        """Return the paths for the router, which handles requests that ``find`` leaves out, such as other methods."""
        calls = self._invocations
        handlers = ((_SYNC, calls.call), (_ASYNC, calls.accept), (_BATCH, calls.accept_batch))
        return [Resource(path=one.path, methods={one.method: _routed(handle)}) for one, handle in handlers]

    def _read_target(self, head: bytes) -> FunctionUrn | None:
        """Return the URN of the function in ``/v2/<project>/fgs/functions/<urn>``; None for any other path.

        Raises InvalidField if the path is not UTF-8 or the URN is invalid; AccessDenied if the URN is of another
        project.
        """
        parts = head.split(b"/") if len(head) <= MAX_TARGET else []
        if len(parts) != 6 or (parts[0], parts[1], parts[3], parts[4]) != (b"", b"v2", b"fgs", b"functions"):
            return None
        try:
            project, urn = (unquote_to_bytes(part).decode() for part in (parts[2], parts[5]))
        except UnicodeDecodeError:
            raise InvalidField("function_urn", head.decode("latin-1"), "must be UTF-8") from None
        return own_urn(urn, project, self._region)


def _routed(handle: Callable[[FunctionUrn, Headers, Receive], Awaitable[Reply]]) -> Handler:
    async def handler(call: Call) -> Reply:
        return await handle(call.urn, call.headers, call.receive)

    return handler
