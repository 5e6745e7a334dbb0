"""HTTP server of the engine as one ASGI application.

A request passes the check of its Host and Origin, then the check of its credentials. An invocation request is then
handled at once; the router handles any other request. Errors become replies only in this module, by default in the
API's JSON form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import structlog

from engine.asgi.error_replies import delay_of, hold_back, problem
from engine.asgi.wire import NO_STORE, App, ClientDisconnect, Headers, Receive, Reply, Scope, Send, respond
from engine.auth.denials import DenialLog, request_fields
from engine.auth.roles import PRINCIPAL, Principal
from engine.errors import AccessDenied, FunctiondError, InvalidField, MissingCredentials, ShuttingDown
from engine.http.api.errors import error_reply
from engine.http.api.invocations import Invocations
from engine.http.api.routing import Resource, make_router, own_urn
from engine.http.auth import Authenticator
from engine.http.console.paths import PAGES
from engine.http.console.site import Console
from engine.http.guard import Guard
from engine.http.operations import OPERATIONS
from engine.http.plugin_requests import PluginRequests
from engine.http.restrictions import check_role, restricted
from engine.http.spool import CLEAN_UP
from engine.metrics.loop_lag import LoopLag, measured
from engine.model.clock import SystemClock
from engine.model.urn import FunctionUrn
from engine.protocols.audit import AuditTrail
from engine.triggers.routes import Mounts

MAX_TARGET = 1200  #: bytes; no URN needs more, even with every byte percent-encoded

log = structlog.get_logger()
_SYNC, _ASYNC = (next(one for one in OPERATIONS if one.name == f"{name}Function") for name in ("Invoke", "AsyncInvoke"))

#: Makes the reply to a request that failed.
Refuse = Callable[[Scope, FunctiondError], Awaitable[Reply]]


def create_app(
    invocations: Invocations,
    resources: Iterable[Resource],
    region: str,
    *,
    authenticator: Authenticator | None = None,
    plugins: PluginRequests | None = None,
    console: Console | None = None,
    denials: DenialLog | None = None,
    lag: LoopLag | None = None,
) -> App:
    """Return the ASGI application that serves the API, the paths of plugins, and the console.

    ``resources`` are those of the API except ``invocations`` and ``invocations-async``, whose requests ``invocations``
    handles without the router. If ``authenticator`` is None, requests need no credentials. ``plugins`` serves requests
    to the paths of plugins. The console also makes the replies to requests for its pages that failed. ``lag`` is the
    measurement of the event loop to which requests are reported.
    """
    found = [*resources, *(console.resources() if console else ())]
    if authenticator is not None:
        found = restricted(found, [*OPERATIONS, *PAGES])
    refuse = console.refuse if console else _refuse
    guard, clock = Guard(credentials=authenticator is not None), SystemClock()
    plugins = plugins or PluginRequests(Mounts(), AuditTrail(), clock)
    denials, router = denials or DenialLog(clock), make_router(found, region)
    server = HttpServer(invocations, router, guard, authenticator, plugins, region, refuse, denials)
    return measured(server, lag or LoopLag())


async def _refuse(scope: Scope, error: FunctiondError) -> Reply:
    return error_reply(error)


class HttpServer:
    def __init__(
        self,
        invocations: Invocations,
        router: App,
        guard: Guard,
        authenticator: Authenticator | None,
        plugins: PluginRequests,
        region: str,
        refuse: Refuse,
        denials: DenialLog,
    ) -> None:
        self._invocations, self._router, self._guard, self._region = invocations, router, guard, region
        self._authenticator, self._plugins, self._refuse, self._denials = authenticator, plugins, refuse, denials
        self._target = lru_cache(4096)(self._read_target)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        finally:
            if CLEAN_UP in scope:
                await scope[CLEAN_UP]()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        delay = 0.0
        try:
            headers: Headers = dict(scope["headers"])
            self._guard.check(scope, headers)
            mount = self._plugins.find(scope["path"])
            if self._authenticator is not None and (mount is None or mount.signed):
                receive = await self._authenticator.admit(scope, headers, receive)
            if mount is not None:
                await self._plugins.serve(mount, scope, receive, send)
                return
            reply = await self._invoke(scope, headers, receive) if scope["method"] == "POST" else None
            if reply is None:
                await self._router(scope, receive, send)
                return
        except FunctiondError as error:
            self._log_denial(scope, error)
            reply, delay = await self._refuse(scope, error), delay_of(error)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            # Only a stopping listener cancels a request, and it waits for this reply.
            reply = error_reply(ShuttingDown())
        except Exception:
            # A bug in one request must not affect the others.
            log.exception("request failed", method=scope["method"], path=scope["path"])
            reply = problem(500, "internal error; see the engine's log")
        if delay:
            # The error is gone by now, and with its traceback the body that the request may have had.
            await hold_back(delay)
        await respond(scope, send, reply, NO_STORE)

    async def _invoke(self, scope: Scope, headers: Headers, receive: Receive) -> Reply | None:
        """Invoke a function if the path ends with ``invocations`` or ``invocations-async``, and return the reply.

        Return None for any other path; the router handles it.
        """
        path: bytes = scope["raw_path"]
        head, _, action = path.rpartition(b"/")
        if action == b"invocations-async":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _ASYNC)
            return await self._invocations.accept(target, headers, receive)
        if action == b"invocations":
            if (target := self._target(head)) is None:
                return None
            check_role(scope, _SYNC)
            return await self._invocations.call(target, headers, receive)
        return None

    def _log_denial(self, scope: Scope, error: FunctiondError) -> None:
        """Log that a request is denied. Wrong credentials are logged where they are verified."""
        if not isinstance(error, AccessDenied | MissingCredentials):
            return
        principal: Principal | None = scope.get(PRINCIPAL)
        if principal is not None:
            self._denials.known(principal, scope, str(error))
        else:
            self._denials.anonymous("access denied", **request_fields(scope), problem=str(error))

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
