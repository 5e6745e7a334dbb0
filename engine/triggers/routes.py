"""HTTP routes of plugins.

The API's listener serves paths below ``/triggers/`` and the vendor's API paths. Plugins may also open separate
listeners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from functools import lru_cache

import structlog
from msgspec import Struct
from msgspec.structs import replace

from engine.asgi.admission import ClientRules
from engine.asgi.egress import Egress
from engine.asgi.error_replies import delay_of, hold_back, new_request_id, problem, retry_after, status_of
from engine.asgi.listener import listen
from engine.asgi.tls import ServerTls
from engine.asgi.wire import NO_STORE, App, ClientDisconnect, Headers, Receive, Reply, Scope, Send, read_body, respond
from engine.auth.verifier import address_of
from engine.errors import FunctiondError
from engine.metrics.loop_lag import LoopLag, measured
from engine.protocols import EVENT_LIMIT, Operation, PushHandler, PushRequest

PREFIX = "/triggers/"
#: Key of the ASGI scope in which the API stores the project of verified credentials.
PROJECT = "functiond.project"
#: Seconds that running requests get to finish when a listener closes.
GRACE = 1.0

log = structlog.get_logger("functiond.triggers")


class Mount(Struct, kw_only=True, eq=False):
    path: str
    app: App
    signed: bool
    plugin: str = ""  #: name of its table in the settings
    operations: Sequence[Operation] = ()


@lru_cache(4096)
def _vendor_path(path: str) -> str:
    """Return version and first word after the project of a vendor path: ``v2/streams``."""
    _, version, _, word, *_ = (*path.split("/", 4), "", "")
    return f"{version}/{word}"


class Mounts:
    """ASGI applications of all plugins, by the path that each serves."""

    def __init__(self) -> None:
        self._by_path: dict[str, list[Mount]] = {}

    @contextmanager
    def added(self, *mounts: Mount) -> Iterator[None]:
        """Serve applications at their paths until the block ends."""
        for mount in mounts:
            self._by_path.setdefault(mount.path, []).append(mount)
        try:
            yield
        finally:
            for mount in mounts:
                same = self._by_path[mount.path]
                same.remove(mount)
                if not same:
                    del self._by_path[mount.path]

    def operations(self) -> Sequence[Operation]:
        """Return the API operations that plugins serve at their paths, sorted by name."""
        mounts = [mount for mounts in self._by_path.values() for mount in mounts]
        return sorted(
            (operation for mount in mounts for operation in mount.operations), key=lambda operation: operation.name
        )

    def find(self, path: str) -> Mount | None:
        """Return the application for a request's path, or None if no plugin serves the path.

        Below ``/triggers/``, the longest served path that is equal to ``path`` or above it is used. For vendor paths
        (``/v…``), version and first word after the project are compared: ``v2/streams``. If several applications serve
        the same path, the latest is returned.
        """
        if path.startswith("/v"):
            mounts = self._by_path.get(_vendor_path(path))
            return mounts[-1] if mounts else None
        while path.startswith(PREFIX):
            if mounts := self._by_path.get(path):
                return mounts[-1]
            path = path.rpartition("/")[0]
        return None


class NetworkOptions(Struct, frozen=True, kw_only=True):
    """Options of the listeners of plugins, and limits of their connections."""

    lag: LoopLag  #: measurement to which requests are reported
    rules: ClientRules | None = None  #: None: the default rules
    tls: ServerTls | None = None  #: None: without TLS
    egress: Egress  #: limits of connections to addresses that tenants write


class PluginRoutes:
    """HTTP routes of one plugin. A route exists until the block that adds it ends. ``network`` is for listeners."""

    def __init__(self, mounts: Mounts, plugin: str, network: NetworkOptions | None = None) -> None:
        self._mounts, self._plugin, self._prefix = mounts, plugin, PREFIX + plugin
        self._listening = network or NetworkOptions(lag=LoopLag(), egress=Egress())

    @contextmanager
    def mount(
        self,
        path: str,
        handler: PushHandler,
        *,
        signed: bool = False,
        operations: Sequence[Operation] = (),
        limit: int = EVENT_LIMIT,
    ) -> Iterator[str]:
        whole = self._prefix + path.rstrip("/")
        app = _App(handler, limit, len(whole))
        mount = Mount(path=whole, app=app, signed=signed, plugin=self._plugin, operations=operations)
        with self._mounts.added(mount):
            yield whole

    def claim(
        self, *heads: str, handler: PushHandler, operations: Sequence[Operation] = (), limit: int = EVENT_LIMIT
    ) -> AbstractContextManager[None]:
        app = _App(handler, limit, 0)
        mounts = [Mount(path=head, app=app, signed=True, plugin=self._plugin) for head in heads]
        mounts[0].operations = operations
        return self._mounts.added(*mounts)

    def listen(self, app: App, host: str, port: int) -> AbstractAsyncContextManager[int]:
        options = self._listening
        return listen(measured(app, options.lag), host, port, grace=GRACE, rules=options.rules, tls=options.tls)

    def app(self, handler: PushHandler, *, limit: int = EVENT_LIMIT) -> App:
        return _App(handler, limit, 0)


class _App:
    """ASGI application that calls a plugin's handler for each request.

    Converts exceptions of the handler, and a body that is too long, to error replies.
    """

    def __init__(self, handler: PushHandler, limit: int, skip: int) -> None:
        self._handler, self._limit, self._skip = handler, limit, skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        delay = 0.0
        try:
            reply = await self._answer(scope, receive)
        except ClientDisconnect:
            return
        except FunctiondError as error:
            reply = problem(status_of(type(error)), str(error), retry_after(error))
            delay = delay_of(error)
        except Exception:
            log.exception("push failed", method=scope["method"], path=scope["path"])
            reply = problem(500, "internal error: see the engine's log")
        else:
            if reply.status >= 400:  # the vendor's SDKs read it, as from the API's own errors
                reply = replace(reply, headers=(*reply.headers, (b"X-Request-Id", new_request_id())))
        await hold_back(delay)
        await respond(scope, send, reply, NO_STORE)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        headers: Headers = dict(scope["headers"])
        request = PushRequest(
            method=scope["method"],
            path=scope["path"][self._skip :],
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            body=await read_body(receive, headers, self._limit),
            client=address_of(scope),
            project=scope.get(PROJECT, ""),
        )
        return await self._handler(request)
