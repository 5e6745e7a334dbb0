"""HTTP server of the engine as one ASGI application.

A request passes the check of its Host and Origin, then the check of its credentials, except on paths of plugins that
check credentials of their own. It is then handled by the plugin of its path, as an invocation, or by the router.
Plugins answer their own errors; all other errors become replies here, by default in the API's JSON form. The error
about an unknown function suggests names that resemble it.
"""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

import anyio.to_thread
import structlog

from engine.asgi.error_replies import delay_of, hold_back
from engine.asgi.wire import NO_STORE, ClientDisconnect, Headers, Receive, Reply, Scope, Send, respond
from engine.auth.denials import DenialLog, request_fields
from engine.auth.roles import PRINCIPAL, Principal
from engine.errors import AccessDenied, FunctiondError, MissingCredentials, ShuttingDown, UnknownFunction
from engine.functions.catalog import Catalog
from engine.http.api.errors import error_reply
from engine.http.api.invocations import Invocations
from engine.http.api.routing import ServedOperation, make_router
from engine.http.auth import Authenticator
from engine.http.console.pages import GUARDED
from engine.http.console.paths import name_of
from engine.http.console.session.sessions import ConsoleAuthenticator
from engine.http.console.site import Console
from engine.http.function_tokens import FunctionAuthenticator
from engine.http.guard import Guard
from engine.http.operations import BY_NAME
from engine.http.plugin_requests import PluginRequests
from engine.http.restrictions import restricted
from engine.http.spool import CLEAN_UP
from engine.metrics.loop_lag import LoopLag
from engine.model.clock import SystemClock
from engine.protocols.audit import AuditTrail
from engine.triggers.routes import Mounts

#: Makes the reply to a request that failed.
Refuse = Callable[[Scope, FunctiondError], Awaitable[Reply]]
MOST_NAMES = 3  #: names that resemble an unknown one
MOST_COMPARED = 2_000
#: Seconds between two comparisons. Clients that repeat a wrong request quickly must not keep the engine busy.
PAUSE = 0.05

_LIST = BY_NAME["ListFunctions"]

log = structlog.get_logger("functiond.http")


class HttpServer:
    """ASGI application that serves the API, the paths of plugins, and the console.

    ``served`` are the operations of the API except those of ``invocations``, most of whose requests are handled without
    the router. If ``authenticator`` is None, requests need no credentials. ``plugins`` serves requests to the paths of
    plugins. The console also makes the replies to requests for its pages that failed. ``lag`` is the measurement of the
    event loop to which requests are reported.
    """

    def __init__(
        self,
        invocations: Invocations,
        served: Iterable[ServedOperation],
        region: str,
        *,
        authenticator: Authenticator | ConsoleAuthenticator | FunctionAuthenticator | None = None,
        plugins: PluginRequests | None = None,
        console: Console | None = None,
        denials: DenialLog | None = None,
        lag: LoopLag | None = None,
    ) -> None:
        served = [*served, *invocations.served(), *(console.served() if console else ())]
        self._router = make_router(served if authenticator is None else restricted(served), region)
        self._invocations, self._authenticator, self._lag = invocations, authenticator, lag or LoopLag()
        self._plugins = plugins or PluginRequests(Mounts(), AuditTrail(), SystemClock())
        self._guard, self._denials = Guard(credentials=authenticator is not None), denials or DenialLog(SystemClock())
        self._refuse = NearNames(console.refuse if console else _refuse, invocations.catalog)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        delay, lag = 0.0, self._lag
        lag.enter(scope)
        lag.requests += 1
        try:
            headers: Headers = dict(scope["headers"])
            self._guard.check(scope, headers)
            scope[GUARDED] = True
            mount = self._plugins.find(scope["path"])
            if self._authenticator is not None and (mount is None or mount.signed):
                receive = await self._authenticator.admit(scope, headers, receive)
            if scope["method"] == "HEAD":  # signed as such; the listener leaves out the body
                scope["method"] = "GET"
            if mount is not None:
                await self._plugins.serve(mount, scope, receive, send)
                return
            invocation = self._invocations.find(scope, headers, receive)
            if invocation is None:
                await self._router(scope, receive, send)
                return
            reply = await invocation
        except ClientDisconnect:
            return
        except (Exception, asyncio.CancelledError) as error:
            reply, delay = await self._error_reply(scope, error), delay_of(error)
        finally:
            lag.requests -= 1
            if CLEAN_UP in scope:
                await scope[CLEAN_UP]()
        if delay:
            # Outside of the except block, whose error would hold the body of the request in memory.
            await hold_back(delay)
        await respond(scope, send, reply, NO_STORE)

    async def _error_reply(self, scope: Scope, error: BaseException) -> Reply:
        if isinstance(error, FunctiondError):
            self._log_denial(scope, error)
            return await self._refuse(scope, error)
        if isinstance(error, asyncio.CancelledError):
            # Only a stopping listener cancels a request, and it waits for this reply.
            return error_reply(ShuttingDown())
        # A bug in one request must not affect the others.
        log.error("request failed", method=scope["method"], path=scope["path"], exc_info=error)
        return await self._refuse(scope, FunctiondError("internal error; see the engine's log"))

    def _log_denial(self, scope: Scope, error: FunctiondError) -> None:
        """Log that a request is denied. Wrong credentials are logged where they are verified."""
        if not isinstance(error, AccessDenied | MissingCredentials):
            return
        principal: Principal | None = scope.get(PRINCIPAL)
        if principal is not None:
            self._denials.known(principal, scope, str(error))
        else:
            self._denials.anonymous("access denied", **request_fields(scope), problem=str(error))


async def _refuse(scope: Scope, error: FunctiondError) -> Reply:
    return error_reply(error)


class NearNames:
    """Reply to a request that failed. Adds near names if the caller may list the functions of the project."""

    def __init__(self, refuse: Refuse, catalog: Catalog) -> None:
        self._refuse, self._catalog = refuse, catalog
        self._next = 0.0

    async def __call__(self, scope: Scope, error: FunctiondError) -> Reply:
        if isinstance(error, UnknownFunction) and _may_list(scope) and time.monotonic() >= self._next:
            self._next = time.monotonic() + PAUSE
            project = scope["path"].split("/")[2]
            names = [name_of(function) for function in islice(self._catalog.list(project), MOST_COMPARED)]
            near = await anyio.to_thread.run_sync(_near, error.name, names)
            error = UnknownFunction(error.name, near)
        return await self._refuse(scope, error)


def _may_list(scope: Scope) -> bool:
    principal: Principal | None = scope.get(PRINCIPAL)
    return scope["path"].startswith("/v2/") and (principal is None or principal.may(_LIST.roles))


def _near(name: str, names: Iterable[str]) -> Sequence[str]:
    """Return those of ``names`` whose last part resembles ``name``, the most similar first."""
    parts: dict[str, list[str]] = {}
    for candidate in names:
        parts.setdefault(candidate.rpartition(":")[2].lower(), []).append(candidate)
    similar = difflib.get_close_matches(name.lower(), parts, n=MOST_NAMES)
    return [candidate for part in similar for candidate in parts[part]][:MOST_NAMES]
